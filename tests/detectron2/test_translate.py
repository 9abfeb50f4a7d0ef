"""detectron2's YAML files become ours, and what does not is refused by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import detectron2_files
import pytest
import torch
from detectron2_files import BASELINES, write_file

from frcnn.assembly import build_model
from frcnn.cli.main import main
from frcnn.config import ConfigError
from frcnn.config.dump import to_plain
from frcnn.data.roles import Category
from frcnn.detectron2.defaults import DEFAULTS, FIXED
from frcnn.detectron2.translate import translate
from frcnn.errors import UserError
from frcnn.experiment import read_config

CONFIGS = Path(__file__).parents[2] / "configs" / "coco"
PARAMETERS = {
    "faster_rcnn_R_50_FPN_1x": 41_699_936,
    "faster_rcnn_R_50_C4_1x": 33_791_644,
    "faster_rcnn_R_50_DC5_1x": 165_581_468,
    "faster_rcnn_R_101_FPN_3x": 60_639_840,
    "faster_rcnn_X_101_32x8d_FPN_3x": 104_784_480,
    "mask_rcnn_R_50_FPN_1x": 44_343_216,
    "cascade_mask_rcnn_R_50_FPN_1x": 71_984_926,
}


def imported(folder: Path, name: str) -> Path:
    output = folder / "imported.yaml"
    assert main(["import-config", str(write_file(folder, name, BASELINES[name])), "--output", str(output)]) == 0
    return output


def test_key_tables_do_not_overlap() -> None:
    assert not DEFAULTS.keys() & FIXED.keys()


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_model_has_as_many_parameters_as_detectron2s(tmp_path: Path, capsys, name: str) -> None:
    experiment = read_config(imported(tmp_path, name)).build()
    with torch.device("meta"):
        model = build_model(experiment, [Category(i + 1, str(i)) for i in range(80)], torch.device("meta"))
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert f"{PARAMETERS[name]:,} parameters with 80 classes" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in BASELINES if not name.startswith("rpn")])
def test_the_result_is_our_own_baseline_but_for_what_its_weights_ask_for(tmp_path: Path, name: str) -> None:
    theirs, ours = (to_plain(read_config(path).plan) for path in (imported(tmp_path, name), CONFIGS / f"{name}.yaml"))
    for key in ("channel_order", "pixel_mean", "pixel_std"):
        assert theirs["model"].pop(key) != ours["model"].pop(key)
    for config in (theirs, ours):
        for part in ("backbone", "roi_heads"):
            config["model"][part].pop("stride_in_1x1", None)
        for neck in config["model"]["necks"]:
            neck.pop("in_features")  # all of them, named or not
        for key in ("output_dir", "init_weights", "hooks", "num_classes"):
            config.pop(key)
        config["data"]["test"] = list(config["data"]["test"].values())
    assert theirs == ours


def test_proposals_alone(tmp_path: Path) -> None:
    config = to_plain(read_config(imported(tmp_path, "rpn_R_50_FPN_1x")).plan)
    assert config["model"]["roi_heads"] is None
    assert config["model"]["proposal_generator"]["post_nms_top_n"] == {"train": 1000, "test": 2000}
    assert config["evaluator"]["name"] == "ProposalEvaluator"


PROPOSALS = {
    "MODEL__LOAD_PROPOSALS": True,
    "MODEL__PROPOSAL_GENERATOR__NAME": "PrecomputedProposals",
    "DATASETS__TRAIN": "('coco_2014_train', 'coco_2014_val')",
    "DATASETS__PROPOSAL_FILES_TRAIN": "('train.pkl', 'val.pkl')",
    "DATASETS__PRECOMPUTED_PROPOSAL_TOPK_TRAIN": 500,
    "DATASETS__TEST": "('coco_2017_val',)",
    "DATASETS__PROPOSAL_FILES_TEST": "('detectron2://rpn/val.pkl',)",
}


def test_fast_rcnn_on_proposals_of_files(tmp_path: Path) -> None:
    """The base's RPN keys are without effect; 1000 proposals when testing are detectron2's default."""
    path = write_file(tmp_path, "fast", with_changes("faster_rcnn_R_50_FPN_1x", **PROPOSALS))
    assert main(["import-config", str(path), "--output", str(tmp_path / "out.yaml")]) == 0
    config = read_config(tmp_path / "out.yaml")
    plain = to_plain(config.plan)
    assert plain["model"]["proposal_generator"] == {
        "name": "PrecomputedProposals",
        "top_n": {"train": 500, "test": 1000},
    }
    first, second = plain["data"]["train"]["dataset"]["datasets"]
    test = plain["data"]["test"]["coco_2017_val"]["dataset"]
    assert [one["proposals"] for one in (first, second, test)] == ["train.pkl", "val.pkl", "detectron2://rpn/val.pkl"]
    assert [one["proposals_top_n"] for one in (first, second, test)] == [500, 500, 1000]
    assert "proposals" in config.build().data.train.dataset.provides


def test_images_with_few_keypoints_are_left_out_of_training_alone(tmp_path: Path) -> None:
    """One keypoint is detectron2's default."""
    content = with_changes("keypoint_rcnn_R_50_FPN_1x", MODEL__ROI_KEYPOINT_HEAD={"MIN_KEYPOINTS_PER_IMAGE": 3})
    for name, expected in (("keypoint_rcnn_R_50_FPN_1x", 1), ("changed", 3)):
        data = translate(write_file(tmp_path, name, BASELINES.get(name, content)))["data"]
        assert data["train"]["dataset"]["min_keypoints_per_image"] == expected
        (test,) = data["test"].values()
        assert "min_keypoints_per_image" not in test["dataset"]


def test_proposals_that_nobody_reads_are_no_loss(tmp_path: Path) -> None:
    changes = {"MODEL__LOAD_PROPOSALS": True, "DATASETS__PROPOSAL_FILES_TRAIN": "('train.pkl',)"}
    assert translated(tmp_path, **changes) == translated(tmp_path)


def with_changes(name: str, **changes: Any) -> dict[str, Any]:
    """A baseline with other values; keys are dotted, with __ for the dots."""
    content = copy.deepcopy(BASELINES[name])
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = content
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return content


def translated(folder: Path, **changes: Any) -> dict[str, Any]:
    return translate(write_file(folder, "changed", with_changes("faster_rcnn_R_50_FPN_1x", **changes)))


@pytest.mark.parametrize(
    ("changes", "where", "expected"),
    [
        ({"INPUT__FORMAT": "RGB"}, "model.channel_order", "RGB"),
        ({"MODEL__RPN__CONV_DIMS": [-1, -1]}, "model.proposal_generator.head.num_convs", 2),
        ({"MODEL__RPN__SMOOTH_L1_BETA": 0.11}, "model.proposal_generator.box_loss", {"name": "SmoothL1Loss", "beta": 0.11}),
        ({"MODEL__ROI_BOX_HEAD__BBOX_REG_LOSS_TYPE": "giou"}, "model.roi_heads.box_predictor.box_loss.name", "GIoULoss"),
        ({"MODEL__ROI_BOX_HEAD__POOLER_TYPE": "ROIAlign"}, "model.roi_heads.pooler.aligned", False),
        ({"MODEL__ROI_BOX_HEAD__TRAIN_ON_PRED_BOXES": True}, "model.roi_heads.train_on_pred_boxes", True),
        ({"MODEL__ROI_HEADS__PROPOSAL_APPEND_GT": False}, "model.roi_heads.append_gt", False),
        ({"MODEL__BACKBONE__FREEZE_AT": 0}, "model.backbone.freeze_at", 0),
        (
            {"MODEL__RESNETS__DEFORM_ON_PER_STAGE": [False, True, True, True], "MODEL__RESNETS__DEFORM_MODULATED": True},
            "model.backbone.deformable",
            {"stages": ["res3", "res4", "res5"], "modulated": True, "groups": 1},
        ),
        ({"SOLVER__LR_SCHEDULER_NAME": "WarmupCosineLR"}, "schedule.name", "WarmupCosine"),
        ({"SOLVER__STEPS": "(60000, 100000)"}, "schedule.milestones", ["60000it"]),
        ({"SOLVER__AMP__ENABLED": True}, "trainer.amp", "fp16"),
        ({"SOLVER__WEIGHT_DECAY_NORM": 1e-4}, "optimizer.norm_weight_decay", 1e-4),
        ({"INPUT__CROP__ENABLED": True}, "data.train.transforms.0.size", (0.9, 0.9)),
        ({"INPUT__CROP__ENABLED": True}, "data.train.transforms.0.mode", "relative_range"),
        ({"INPUT__RANDOM_FLIP": "none"}, "data.train.transforms.-1.name", "ResizeShortestEdge"),
        ({"DATASETS__TRAIN": "('coco_2014_train', 'coco_2014_val')"}, "data.train.dataset.name", "ConcatDataset"),
        ({"DATALOADER__FILTER_EMPTY_ANNOTATIONS": False}, "data.train.dataset.images_without_objects", "keep"),
        (
            {"DATALOADER__SAMPLER_TRAIN": "RepeatFactorTrainingSampler", "DATALOADER__REPEAT_THRESHOLD": 0.001},
            "data.train.image_sampler",
            {"name": "RepeatFactorSampler", "threshold": 0.001},
        ),
        ({"TEST__EVAL_PERIOD": 5000}, "hooks.evaluate.every", "5000it"),
        ({"TEST__PRECISE_BN__ENABLED": True}, "hooks.precise_bn.num_batches", 200),
        ({"TEST__AUG__ENABLED": True}, "test_time_augmentation.max_size", 4000),
        ({"MODEL__ROI_HEADS__NUM_CLASSES": 3}, "num_classes", 3),
        ({"SEED": 7}, "seed", 7),
    ],
)  # fmt: skip
def test_a_key_goes_where_it_belongs(tmp_path: Path, changes: dict[str, Any], where: str, expected: Any) -> None:
    value: Any = translated(tmp_path, **changes)
    for word in where.split("."):
        value = value[int(word) if isinstance(value, list) else word]
    assert value == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"MODEL__DEVICE": "cpu"}, "MODEL.DEVICE: 'cpu' is not carried over: here it is said on the command line: --device"),
        ({"MODEL__BACKBONE__NAME": "build_regnet_backbone"}, "MODEL.BACKBONE.NAME: 'build_regnet_backbone' is not"),
        ({"MODEL__ROI_HEADS__NAME": "MyHeads"}, "only StandardROIHeads, Res5ROIHeads and CascadeROIHeads"),
        ({"MODEL__RETINANET__NUM_CLASSES": 3}, "one-stage detectors are no part of this framework"),
        ({"MODEL__RPN__NMS_TRESH": 0.6}, "there is no counterpart here; did you mean MODEL.RPN.NMS_THRESH?"),
        ({"MODEL__ROI_BOX_HEAD__USE_SIGMOID_CE": True}, "the nearest is model.roi_heads.box_predictor.class_loss"),
        ({"SOLVER__CLIP_GRADIENTS__ENABLED": True}, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE: detectron2's default 'value' is not"),
        ({"DATASETS__TRAIN": "('my_data',)"}, "the data set 'my_data' is not known"),
        ({"TEST__EXPECTED_RESULTS": [["bbox", "AP", 38.5, 0.2]]}, "TEST.EXPECTED_RESULTS: (('bbox', 'AP', 38.5, 0.2),) is"),
        ({"VERSION": 1}, "only version 2 is read"),
        ({**PROPOSALS, "DATASETS__PROPOSAL_FILES_TRAIN": "('a.pkl',)"}, "expected one for each of the 2 data sets"),
        ({**PROPOSALS, "MODEL__LOAD_PROPOSALS": False}, "MODEL.LOAD_PROPOSALS: False is not carried over: Precomputed"),
        ({**PROPOSALS, "MODEL__PROPOSAL_GENERATOR__MIN_SIZE": 4}, "keeps proposals of every size"),
        ({"MODEL__PROPOSAL_GENERATOR__NAME": "RRPN"}, "only RPN and PrecomputedProposals are translated; rotated boxes"),
    ],
)  # fmt: skip
def test_a_key_that_is_not_carried_over_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        translated(tmp_path, **changes)
    assert reason in str(caught.value)
    assert len(caught.value.problems) == 1


def test_what_a_switched_off_part_says_is_no_loss(tmp_path: Path) -> None:
    changes = {"MODEL__ROI_MASK_HEAD__NAME": "MyMaskHead", "MODEL__ROI_KEYPOINT_HEAD__NUM_KEYPOINTS": 5}
    assert translated(tmp_path, **changes) == translated(tmp_path)


def test_every_refusal_names_its_file_and_line(tmp_path: Path, capsys) -> None:
    (tmp_path / "base.yaml").write_text("MODEL:\n  DEVICE: cpu\n")
    path = tmp_path / "child.yaml"
    path.write_text("_BASE_: base.yaml\nVIS_PERIOD: 10\nDATASETS:\n  TRAIN: ('coco_2017_train',)\n")
    assert main(["import-config", str(path), "--output", str(tmp_path / "out.yaml")]) == 2
    assert [line.split(" is not")[0] for line in capsys.readouterr().err.removeprefix("error: ").splitlines()] == [
        f"{tmp_path}/base.yaml:2: MODEL.DEVICE: 'cpu'",
        f"{path}:2: VIS_PERIOD: 10",
    ]
    assert not (tmp_path / "out.yaml").exists()


def test_a_key_can_be_given_up(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x", with_changes("faster_rcnn_R_50_FPN_1x", MODEL__DEVICE="cpu"))
    words = ["import-config", str(path), "--output", str(tmp_path / "out.yaml"), "--leave-out", "MODEL.DEVICE"]
    assert main(words) == 0
    assert "# Left out: MODEL.DEVICE" in (tmp_path / "out.yaml").read_text().splitlines()


def test_a_key_that_nobody_knows_cannot_be_given_up(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x", with_changes("faster_rcnn_R_50_FPN_1x", MODEL__DEVICE="cpu"))
    with pytest.raises(UserError, match=r"--leave-out MODEL\.DEVCIE: neither .* did you mean MODEL\.DEVICE"):
        translate(path, ["MODEL.DEVCIE"])


def test_a_data_set_of_ones_own_is_left_to_be_filled_in(tmp_path: Path) -> None:
    changes = {"DATASETS__TRAIN": "('balloons_train',)", "DATASETS__TEST": "('balloons_val',)"}
    path = write_file(tmp_path, "x", with_changes("faster_rcnn_R_50_FPN_1x", **changes))
    words = ["import-config", str(path), "--output", str(tmp_path / "out.yaml")]
    assert main(words) == 2
    assert main([*words, "--leave-out", "DATASETS.TRAIN", "--leave-out", "DATASETS.TEST"]) == 0
    data = to_plain(read_config(tmp_path / "out.yaml").plan)["data"]
    assert data["train"]["dataset"]["annotations"] == "balloons_train.json"
    assert data["test"]["balloons_val"]["dataset"]["images"] == "balloons_val"


def test_bad_files_are_told_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for ours in ("model: {name: FasterRCNN}\n", "model: {necks: [{name: FPN, out_channels: 64}]}\n"):
        path.write_text(ours)
        with pytest.raises(UserError, match="has none of detectron2's sections"):
            translate(path)
    path.write_text("model: {name: FasterRCNN}\n")
    with pytest.raises(UserError, match="has none of detectron2's sections"):
        translate(path)
    path.write_text("_BASE_: Base-RCNN-FPN.yaml\n")
    with pytest.raises(UserError, match=r"x.yaml:1: _BASE_: .*Base-RCNN-FPN.yaml: No such file"):
        translate(path)
    path.write_text("MODEL: {RPN: {IOU_THRESHOLDS: 3}}\n")
    with pytest.raises(
        UserError, match=r"x.yaml:1: MODEL.RPN.IOU_THRESHOLDS: expected a list such as \(0.3, 0.7\), got 3"
    ):
        translate(path)
    evil = "MODEL:\n  ANCHOR_GENERATOR:\n    SIZES: !!python/object/apply:os.system ['exit']\n"
    path.write_text(evil)
    with pytest.raises(UserError, match=r"tags such as .* mean nothing here"):
        translate(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("MODEL: {RPN: {NMS_THRESH: high}}", "MODEL.RPN.NMS_THRESH: expected a number such as 0.7, got 'high'"),
        ("MODEL: {RPN: {IOU_THRESHOLDS: [0.3]}}", "MODEL.RPN.IOU_THRESHOLDS: expected 2 values such as (0.3, 0.7), got (0.3,)"),
        ("SOLVER: {STEPS: {first: 3}}", "SOLVER.STEPS: expected one value such as (30000,), got a mapping with first"),
        ("SOLVER: {STEPS: [a]}", "SOLVER.STEPS: expected a list such as (30000,), got ('a',)"),
        ("SOLVER: {STEPS: '3, a'}", "SOLVER.STEPS: expected a list such as (30000,), got '3, a'"),
        ("SOLVER: {NESTEROV: 1}", "SOLVER.NESTEROV: expected True or False such as False, got 1"),
    ],
)  # fmt: skip
def test_a_value_of_another_form_is_told_by_detectron2s_key(tmp_path: Path, capsys, line: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"MODEL: {{WEIGHTS: a.pkl}}\n{line}\n" if line.startswith("S") else f"\n{line}\n")
    assert main(["import-config", str(path), "--output", str(tmp_path / "out.yaml")]) == 2
    assert capsys.readouterr().err == f"error: {path}:2: {message}\n"


def test_a_value_that_our_components_refuse_is_told_by_detectron2s_key(tmp_path: Path, capsys) -> None:
    path = write_file(tmp_path, "x", with_changes("faster_rcnn_R_50_FPN_1x", MODEL__RPN__NMS_THRESH=1.7))
    line = 1 + next(i for i, text in enumerate(path.read_text().splitlines()) if "NMS_THRESH" in text)
    assert main(["import-config", str(path), "--output", str(tmp_path / "out.yaml")]) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        f"error: {path}:{line}: MODEL.RPN.NMS_THRESH: 1.7 makes no config of ours: model.proposal_gen"
    )
    assert "iou_threshold" in told
    assert told.count("\n") == 1


def test_a_mistake_whose_key_is_not_known_names_no_line(tmp_path: Path, capsys) -> None:
    changes = {"MODEL__ANCHOR_GENERATOR__SIZES": [[32], [64]]}
    path = write_file(tmp_path, "x", with_changes("faster_rcnn_R_50_FPN_1x", **changes))
    assert main(["import-config", str(path), "--output", str(tmp_path / "out.yaml")]) == 2
    assert "sizes" in capsys.readouterr().err


@pytest.mark.parametrize(("groups", "allowed"), [(1, "18, 34, 50, 101, 152"), (32, "50, 101, 152")])
def test_a_depth_that_no_resnet_has(tmp_path: Path, groups: int, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        translated(tmp_path, MODEL__RESNETS__DEPTH=51, MODEL__RESNETS__NUM_GROUPS=groups)
    (problem,) = caught.value.problems
    assert problem.path == "MODEL.RESNETS.DEPTH"
    assert problem.message.endswith(f"it must be one of {allowed}")


def test_one_list_of_anchor_sizes_is_for_every_level(tmp_path: Path) -> None:
    changes = {"MODEL__ANCHOR_GENERATOR__SIZES": [32, 64], "MODEL__ANCHOR_GENERATOR__ASPECT_RATIOS": [1.0]}
    anchors = translated(tmp_path, **changes)["model"]["proposal_generator"]["anchor_generator"]
    assert anchors["sizes"] == ((32, 64),) * 5
    assert anchors["aspect_ratios"] == (1.0,)


def test_files_are_read_as_detectron2_reads_them(tmp_path: Path) -> None:
    """Tuples in a text, numbers with an exponent, and words for true and false."""
    assert detectron2_files.BASES["Base-RCNN-FPN.yaml"]["SOLVER"]["STEPS"] == "(60000, 80000)"
    config = translated(tmp_path, SOLVER__BASE_LR="1e-2", SOLVER__NESTEROV="True")
    assert config["optimizer"]["lr"] == 0.01
    assert config["optimizer"]["nesterov"] is True
