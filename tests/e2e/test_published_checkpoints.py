"""Checkpoints as torchvision and detectron2 publish them, with numbers of our own: converted, they predict at once."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.models import detection

from frcnn.checkpoint.load import load_checkpoint
from frcnn.cli.main import main
from frcnn.data.known_categories import KNOWN_CATEGORIES
from frcnn.deploy.predict import load_predictor
from frcnn.modeling.backbones import ResNet

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "e2e" / "tiny.yaml"
GOLDEN = ROOT / "tests" / "golden"
SMALL = "data.test.val.transforms=[{name: ResizeShortestEdge, sizes: [96]}]"
# No detection would reach the threshold with such numbers, and no second stage would run.
KEEP_ALL = "model.roi_heads.postprocess.score_thresh=0"


def numbers(name: str, shape: list[int]) -> np.ndarray:
    """Small ones, that depend on the name; the scales of norms are near 1."""
    rng = np.random.default_rng(sum(name.encode()))
    spread = rng.random(shape, dtype=np.float32) - 0.5
    return 1 + 0.1 * spread if len(shape) == 1 and not name.endswith(("bias", "running_mean")) else 0.02 * spread


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (96, 120, 3), np.uint8))
    return path


def torchvision_file(folder: Path, model: str, file: str) -> Path:
    with torch.device("meta"):
        names = getattr(detection, model)(weights=None, weights_backbone=None).state_dict()
    state_dict = {
        name: torch.from_numpy(numbers(name, list(value.shape))) if value.is_floating_point() else torch.tensor(0)
        for name, value in names.items()
    }
    if model == "fasterrcnn_resnet50_fpn":  # as they were called before torchvision 0.13
        state_dict = {
            name.replace("rpn.head.conv.0.0.", "rpn.head.conv.").replace("blocks.0.0.", "blocks.0."): value
            for name, value in state_dict.items()
        }
    torch.save(state_dict, folder / file)
    return folder / file


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"),
        ("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"),
        ("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth"),
        ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"),
        ("maskrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth"),
        ("keypointrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn_coco-fc266e95.pth"),
    ],
)
def test_a_torchvision_detector(tmp_path: Path, image: Path, capsys, model: str, file: str) -> None:
    source, output = torchvision_file(tmp_path, model, file), tmp_path / "out.pth"
    config = ROOT / "configs" / "torchvision" / f"{model}.yaml"
    words = ["convert-weights", str(source), "--config-file", str(config), "--output", str(output), SMALL, KEEP_ALL]
    assert main(words) == 0
    printed = capsys.readouterr().out
    known = KNOWN_CATEGORIES["coco_person" if "keypoint" in model else "coco"]
    assert ("[91] -> [81]" in printed) == (len(known) == 80)
    assert ("norm_eps=0.0" in printed) == ("_coco-" in file and "_v2" not in file)
    assert "unknown" not in printed
    predictor = load_predictor(output, device="cpu")
    assert predictor.categories == known
    assert len(predictor(image).boxes) > 0


@pytest.mark.parametrize(
    ("golden", "config"),
    [
        ("faster_rcnn_R_50_FPN", "faster_rcnn_R_50_FPN_1x"),
        ("faster_rcnn_R_50_C4", "faster_rcnn_R_50_C4_1x"),
        ("mask_rcnn_R_50_FPN", "mask_rcnn_R_50_FPN_1x"),
        ("cascade_mask_rcnn_R_50_FPN", "cascade_mask_rcnn_R_50_FPN_1x"),
    ],
)
def test_a_model_of_detectron2s_zoo(tmp_path: Path, image: Path, capsys, golden: str, config: str) -> None:
    shapes = json.loads((GOLDEN / f"{golden}_names.json").read_text())
    content = {"model": {name: numbers(name, shape) for name, shape in shapes.items()}}
    source, output = tmp_path / "model_final_b275ba.pkl", tmp_path / "out.pth"
    source.write_bytes(pickle.dumps({**content, "__author__": "Detectron2 Model Zoo"}, protocol=2))
    file = ROOT / "configs" / "coco" / f"{config}.yaml"
    words = ["convert-weights", str(source), "--config-file", str(file), "--output", str(output), SMALL, KEEP_ALL]
    assert main([*words, "model.roi_heads.postprocess.detections_per_image=5"]) == 0
    printed = capsys.readouterr().out
    assert "model.channel_order=BGR    it has RGB" in printed
    assert ("model.roi_heads.stride_in_1x1=true" in printed) == ("C4" in golden)
    predictor = load_predictor(output, device="cpu")
    assert predictor.categories == KNOWN_CATEGORIES["coco"]
    assert predictor.detector.channel_order == "BGR"
    assert len(predictor(image).boxes) == 5


def caffe2_name(name: str) -> str:
    """Detectron's name of a tensor of ours."""
    layers = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    norms = {"weight": "bn_s", "bias": "bn_b"}
    stage, *block, kind = name.split(".")
    if stage == "stem":
        return "conv1_w" if len(block) == 1 else f"res_conv1_{norms[kind]}"
    number, layer = block[:2]
    return f"{stage}_{number}_{layers[layer]}_{'w' if len(block) == 2 else norms[kind]}"


def test_a_training_starts_from_detectrons_imagenet_weights(tmp_path: Path, frcnn) -> None:
    backbone = ResNet(depth=50, stem_channels=8, freeze_at=0).state_dict()
    blobs = {
        caffe2_name(name): value.numpy()
        for name, value in backbone.items()
        if not name.rpartition(".")[2].startswith("running")
    }
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": {**blobs, "fc1000_w": np.ones((4, 4))}}, protocol=2))
    words = ["train", "--config-file", TINY, "--output-dir", tmp_path / "run", "--init-weights", tmp_path / "R-50.pkl"]
    code, printed, _ = frcnn(
        *words,
        "model.backbone={name: ResNet, depth: 50, stem_channels: 8, freeze_at: 0}",
        "trainer.duration=1it",
        "hooks.pictures=null",
    )
    assert code == 0
    assert f"a Caffe2 classifier (Detectron's ImageNet weights), {len(blobs) + 1} tensors" in printed
    assert "fc1000_w" in printed
    assert "left out: the classifier's last layer" in printed
    assert "warning: these weights are Detectron's, and the config is not made for them; they expect" in printed
    assert "model.channel_order=BGR    the config has RGB" in printed
    assert "backbone.* (265)" in printed  # all of it was loaded, the statistics of folded norms too


@pytest.fixture(scope="module")
def small_file(tmp_path_factory) -> Path:
    """The head of a detector of 7 classes; nobody knows which."""
    path = tmp_path_factory.mktemp("small") / "model_final.pth"
    names = {"roi_heads.box_predictor.cls_score.bias": 8, "proposal_generator.rpn_head.conv.bias": 4}
    torch.save({"model": {name: torch.zeros(size) for name, size in names.items()}}, path)
    return path


def test_without_a_config_the_weights_alone_are_written(tmp_path: Path, small_file: Path, capsys) -> None:
    assert main(["convert-weights", str(small_file), "--output", str(tmp_path / "out.pth")]) == 0
    assert "--init-weights" in capsys.readouterr().out
    assert set(load_checkpoint(tmp_path / "out.pth")["model"]) == {
        "roi_heads.box_predictor.cls_score.bias",
        "proposal_generator.head.convs.0.bias",
    }


def test_classes_that_nobody_names_are_asked_for(tmp_path: Path, small_file: Path, capsys) -> None:
    config = ROOT / "configs" / "coco" / "faster_rcnn_R_50_FPN_1x.yaml"
    words = ["convert-weights", str(small_file), "--config-file", str(config), "--output", str(tmp_path / "out.pth")]
    assert main(words) == 2
    assert "has 7 classes, and their names are not in the file; say them with --categories" in capsys.readouterr().err
    assert main([*words, "--categories", "voc"]) == 2
    assert "has 7 classes, but --categories voc has 20" in capsys.readouterr().err


def test_mistakes_are_one_line(tmp_path: Path, small_file: Path, capsys) -> None:
    there = tmp_path / "there.pth"
    there.touch()
    assert main(["convert-weights", str(small_file), "--output", str(there)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["convert-weights", str(small_file), "model.channel_order=BGR"]) == 2
    assert "goes with --config-file" in capsys.readouterr().err
    assert main(["convert-weights", str(small_file), "--config-file", "x.yaml"]) == 2
    assert "--config-file needs --output" in capsys.readouterr().err
    (tmp_path / "bad.pkl").write_bytes(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00exit\x85R.")
    assert main(["convert-weights", str(tmp_path / "bad.pkl")]) == 2
    assert "holds 'posix.system'; only numpy arrays of numbers" in capsys.readouterr().err
