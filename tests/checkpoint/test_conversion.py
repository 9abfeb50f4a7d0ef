"""Every tensor of another framework's file is in the table, once; and what its weights expect of a config is said."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frcnn.checkpoint.conventions import advice, convention_of, differences
from frcnn.checkpoint.kinds import Kind
from frcnn.checkpoint.sources import Weights, resolve_weights
from frcnn.cli.main import main

BGR = {
    "model.channel_order": "BGR",
    "model.pixel_mean": [103.53, 116.28, 123.675],
    "model.pixel_std": [1.0, 1.0, 1.0],
    "model.backbone.stride_in_1x1": True,
    "model.roi_heads.stride_in_1x1": True,
}


def zoo_file(folder: Path, model: dict[str, Any], **more: Any) -> Weights:
    path = folder / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": model, **more}, protocol=2))
    return resolve_weights(path)


def counted(table: str) -> int:
    """How many of the file's tensors the rows of a table speak of."""
    rows = [line for line in table.splitlines()[1:] if " -> " in line and "(added" not in line]
    moved = [re.search(r"->  \S+ +(\d+)", row) for row in rows]
    return sum(int(match[1]) for match in moved if match) + sum(
        int(match[1]) if (match := re.search(r"\((\d+)\)  ", row)) else 1
        for row, m in zip(rows, moved, strict=True)
        if m is None
    )


def test_the_table_says_where_every_tensor_went(tmp_path: Path) -> None:
    ones = np.ones((4, 4), np.float32)
    weights = zoo_file(
        tmp_path,
        {
            "backbone.bottom_up.res2.0.conv1.weight": ones,
            "backbone.bottom_up.res2.0.conv2.weight": ones,
            "backbone.fpn_lateral2.weight": ones,
            "proposal_generator.anchor_generator.cell_anchors.0": ones,
            "proposal_generator.anchor_generator.cell_anchors.1": ones,
            "pixel_mean": ones,
            "sem_seg_head.predictor.weight": ones,
            "roi_heads.note": "a text",
        },
        __author__="somebody",
    )
    assert weights.conversion is not None
    assert [line.split() for line in weights.conversion.table().splitlines()[1:]] == [
        ["backbone.bottom_up.res2.*", "->", "backbone.res2.*", "2"],
        ["backbone.fpn_lateral2.*", "->", "necks.0.lateral.*", "1"],
        ["proposal_generator.*", "(2)", "->", *["left", "out:", "anchors", "are", "made", "from", "the", "config"]],
        ["pixel_mean", "->", *["left", "out:", "the", "config", "says", "them"]],
        ["roi_heads.note", "->", *["left", "out:", "not", "a", "tensor"]],
        ["sem_seg_head.predictor.weight", "->", *["unknown:", "keeps", "its", "name"]],
    ]
    assert "sem_seg_head.predictor.weight" in weights.state_dict  # so that loading lists it as not used
    assert weights.author == "somebody"


def test_a_classifier_has_a_row_for_a_stage(tmp_path: Path) -> None:
    names = ("conv1", "layer1.0.conv1", "layer1.1.conv2", "layer2.0.conv1")
    torch.save({f"{name}.weight": torch.zeros(64, 64, 3, 3) for name in names}, tmp_path / "r18.pth")
    conversion = resolve_weights(tmp_path / "r18.pth").conversion
    assert conversion is not None
    assert [line.split() for line in conversion.table().splitlines()[1:]] == [
        ["conv1.*", "->", "backbone.stem.conv1.*", "1"],
        ["layer1.*", "->", "backbone.res2.*", "2"],
        ["layer2.*", "->", "backbone.res3.*", "1"],
    ]


def test_a_resnet_of_detectron_in_caffe2s_names(tmp_path: Path) -> None:
    model = {"conv1_w": np.ones((2, 3, 7, 7), np.float32), "conv1_b": np.ones(2, np.float32)}
    for name, shape in (("branch2a", (2, 2, 1, 1)), ("branch2b", (2, 2, 3, 3))):
        model |= {f"res2_0_{name}_w": np.ones(shape, np.float32), f"res2_0_{name}_bn_s": np.ones(2, np.float32)}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"blobs": model}, protocol=2))
    weights = resolve_weights(path)
    assert weights.kind is Kind.CAFFE2
    assert weights.conversion is not None
    table = weights.conversion.table()
    assert counted(table) == len(model)
    assert re.search(r"\(added: running_mean, running_var\) +-> +the norms of the backbone +4", table)
    convention = convention_of(weights)
    assert convention is not None
    assert convention.options == BGR


def resnet(groups: int = 1) -> dict[str, np.ndarray]:
    return {
        "backbone.bottom_up.res2.0.conv1.weight": np.ones((64, 64, 1, 1), np.float32),
        "backbone.bottom_up.res2.0.conv2.weight": np.ones((64, 64 // groups, 3, 3), np.float32),
    }


def test_weights_of_detectron2s_zoo_expect_bgr_images_and_strides_in_the_1x1(tmp_path: Path) -> None:
    convention = convention_of(zoo_file(tmp_path, resnet(), __author__="Detectron2 Model Zoo"))
    assert convention is not None
    assert convention.options == BGR


def test_its_resnext_has_a_pixel_std_and_strides_in_the_3x3(tmp_path: Path) -> None:
    convention = convention_of(zoo_file(tmp_path, resnet(groups=32), __author__="Detectron2 Model Zoo"))
    assert convention is not None
    assert convention.options["model.pixel_std"] == [57.375, 57.12, 58.395]
    assert not convention.options["model.backbone.stride_in_1x1"]


def test_a_file_that_does_not_say_who_made_it_expects_nothing(tmp_path: Path) -> None:
    assert convention_of(zoo_file(tmp_path, resnet())) is None


def test_a_torchvision_resnet_by_detectron2s_names_expects_rgb(tmp_path: Path) -> None:
    names = {name.removeprefix("backbone.bottom_up."): value for name, value in resnet().items()}
    weights = zoo_file(tmp_path, names, __author__="torchvision", matching_heuristics=True)
    convention = convention_of(weights)
    assert convention is not None
    assert convention.options["model.channel_order"] == "RGB"
    assert set(weights.state_dict) == {"backbone.res2.0.conv1.weight", "backbone.res2.0.conv2.weight"}


@pytest.mark.parametrize(
    ("file", "eps"),
    [("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 0.0), ("fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", None)],
)
def test_torchvisions_first_weights_need_an_eps_of_zero(tmp_path: Path, file: str, eps: float | None) -> None:
    torch.save({"backbone.body.conv1.weight": torch.zeros(1)}, tmp_path / file)
    convention = convention_of(resolve_weights(tmp_path / file))
    assert convention is not None
    assert convention.options.get("model.backbone.norm_eps") == eps


def test_a_stage_in_the_roi_heads_is_spoken_of_where_there_is_one(tmp_path: Path) -> None:
    weights = zoo_file(tmp_path, resnet(), __author__="Detectron2 Model Zoo")
    assert not any("roi_heads" in line for line in advice(weights))
    c4 = {**resnet(), "roi_heads.res5.0.conv1.weight": np.ones((512, 1024, 1, 1), np.float32)}
    lines = advice(zoo_file(tmp_path, c4, __author__="Detectron2 Model Zoo"))
    assert "  model.roi_heads.stride_in_1x1=true" in lines


def test_a_backbone_alone_makes_no_detector(tmp_path: Path, capsys) -> None:
    torch.save(
        {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)},
        tmp_path / "r.pth",
    )
    words = ["convert-weights", str(tmp_path / "r.pth"), "--config-file", "x.yaml", "--output", str(tmp_path / "o.pth")]
    assert main(words) == 2
    assert "r.pth: holds a backbone alone, which makes no detector; start a training" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, capsys, bad: float) -> None:
    stages = {f"layer{i}.0.conv1.weight": torch.full((2, 2), bad if i < 4 else 0.0) for i in range(1, 5)}
    path = tmp_path / "r.pth"
    torch.save({"conv1.weight": torch.tensor([0.0, bad]), **stages}, path)
    assert main(["convert-weights", str(path)]) == 0
    assert (
        f"warning: {path}: 4 of its 5 tensors hold NaN or infinite numbers (backbone.stem.conv1.weight, "
        "backbone.res2.0.conv1.weight, backbone.res3.0.conv1.weight, ...)"
    ) in capsys.readouterr().out
    torch.save({"conv1.weight": torch.zeros(2), "layer1.0.conv1.weight": torch.zeros(2)}, path)
    assert main(["convert-weights", str(path)]) == 0
    assert "warning" not in capsys.readouterr().out


def test_only_what_a_config_has_is_compared(tmp_path: Path) -> None:
    weights = zoo_file(tmp_path, resnet(), __author__="Detectron2 Model Zoo")
    convention = convention_of(weights)
    assert convention is not None
    config = {"model": {"channel_order": "RGB", "pixel_std": [58.395, 57.12, 57.375], "backbone": {"name": "ResNet"}}}
    assert [difference.override for difference in differences(convention, config)] == [
        "model.channel_order=BGR",
        "model.pixel_std=[1,1,1]",
    ]
    assert advice(weights, config)[0].startswith("warning: these weights are detectron2's model zoo's, and the config")
    assert advice(weights, {"model": {"channel_order": "BGR"}}) == []
