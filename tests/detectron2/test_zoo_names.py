"""Every detector of detectron2's zoo: its YAML imported, its tensors renamed, none missing, none left over, no other shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2_files import write_file
from torch import Tensor, nn
from zoo_names import caffe2_names, zoo_names

from frcnn.assembly import build_model
from frcnn.checkpoint.caffe2 import from_caffe2
from frcnn.checkpoint.detectron2 import from_detectron2
from frcnn.checkpoint.load import res5_where_the_model_has_it
from frcnn.data.roles import Category
from frcnn.detectron2.translate import translate
from frcnn.experiment import Config

GOLDEN = Path(__file__).parents[1] / "golden"
RESNEXT = {"NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8, "STRIDE_IN_1X1": False}
CASCADE = {"NAME": "CascadeROIHeads"}


def conv_heads(norm: str) -> dict[str, Any]:
    """The 4conv1fc head."""
    box_head = {"NAME": "FastRCNNConvFCHead", "NUM_CONV": 4, "NUM_FC": 1, "NORM": norm}
    return {"ROI_BOX_HEAD": box_head, "ROI_MASK_HEAD": {"NORM": norm}}


def family(base: str, rules: dict[str, Any], depth: int = 50, **model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A YAML of the zoo, and what the rules are given for it."""
    resnets = {"DEPTH": depth, **model.pop("RESNETS", {})}
    content = {"_BASE_": f"../Base-RCNN-{base}.yaml", "MODEL": {"RESNETS": resnets, **model}}
    return content, {"kind": {"DilatedC5": "DC5"}.get(base, base), "depth": depth, **rules}


X101 = {"groups": 32, "width": 8}
FAMILIES = {
    **{
        f"faster_rcnn_R_{depth}_{base}": family(base, {}, depth)
        for depth in (50, 101)
        for base in ("C4", "DilatedC5", "FPN")
    },
    "faster_rcnn_X_101_32x8d_FPN": family("FPN", X101, 101, RESNETS=RESNEXT),
    **{
        f"mask_rcnn_R_{depth}_{base}": family(base, {"mask_convs": convs}, depth, MASK_ON=True)
        for depth in (50, 101)
        for base, convs in (("C4", 0), ("DilatedC5", 4), ("FPN", 4))
    },
    "mask_rcnn_X_101_32x8d_FPN": family("FPN", {**X101, "mask_convs": 4}, 101, RESNETS=RESNEXT, MASK_ON=True),
    **{
        f"keypoint_rcnn_{name}_FPN": family(
            "FPN",
            {"classes": 1, "keypoints": 17, **rules},
            depth,
            RESNETS=resnets,
            KEYPOINT_ON=True,
            ROI_HEADS={"NUM_CLASSES": 1},
        )
        for name, depth, resnets, rules in (("R_50", 50, {}, {}), ("R_101", 101, {}, {}), ("X_101", 101, RESNEXT, X101))
    },
    **{
        f"rpn_R_50_{base}": family(base, {"rois": False}, META_ARCHITECTURE="ProposalNetwork") for base in ("C4", "FPN")
    },
    "fast_rcnn_R_50_FPN": family(
        "FPN", {"rpn": False}, LOAD_PROPOSALS=True, PROPOSAL_GENERATOR={"NAME": "PrecomputedProposals"}
    ),
    "cascade_mask_rcnn_R_50_FPN": family(
        "FPN",
        {"cascade": 3, "agnostic_boxes": True, "mask_convs": 4},
        MASK_ON=True,
        ROI_HEADS=CASCADE,
        ROI_BOX_HEAD={"CLS_AGNOSTIC_BBOX_REG": True},
    ),
    "cascade_mask_rcnn_X_152_32x8d_FPN_gn_dconv": family(
        "FPN",
        {
            **X101,
            **{"cascade": 3, "agnostic_boxes": True, "box_convs": 4, "mask_convs": 8},
            **{"head_norm": "GN", "deformable": (3, 4, 5)},
        },
        152,
        MASK_ON=True,
        RESNETS={**RESNEXT, "DEFORM_ON_PER_STAGE": [False, True, True, True]},
        ROI_HEADS=CASCADE,
        ROI_BOX_HEAD={**conv_heads("GN")["ROI_BOX_HEAD"], "CLS_AGNOSTIC_BBOX_REG": True},
        ROI_MASK_HEAD={"NUM_CONV": 8, "NORM": "GN"},
    ),
    **{
        f"mask_rcnn_R_50_FPN_dconv_c3-c5{'_modulated' * modulated}": family(
            "FPN",
            {"mask_convs": 4, "deformable": (3, 4, 5), "modulated": modulated},
            MASK_ON=True,
            RESNETS={"DEFORM_ON_PER_STAGE": [False, True, True, True], "DEFORM_MODULATED": modulated},
        )
        for modulated in (False, True)
    },
    "mask_rcnn_R_50_FPN_cls_agnostic": family(
        "FPN",
        {"mask_convs": 4, "agnostic_boxes": True, "agnostic_masks": True},
        MASK_ON=True,
        ROI_BOX_HEAD={"CLS_AGNOSTIC_BBOX_REG": True},
        ROI_MASK_HEAD={"CLS_AGNOSTIC_MASK": True},
    ),
    **{
        f"mask_rcnn_R_50_FPN_{norm}": family(
            "FPN",
            {"mask_convs": 4, "box_convs": 4, "norm": norm, "fpn_norm": norm, "head_norm": norm},
            MASK_ON=True,
            RESNETS={"NORM": norm, "STRIDE_IN_1X1": False},
            FPN={"NORM": norm},
            **conv_heads(norm),
        )
        for norm in ("GN", "SyncBN")
    },
    "mask_rcnn_R_101_FPN_lvis": family(
        "FPN", {"classes": 1203, "mask_convs": 4}, 101, MASK_ON=True, ROI_HEADS={"NUM_CLASSES": 1203}
    ),
}
LIKE_GOLDEN = {
    "faster_rcnn_R_50_C4": {"kind": "C4"},
    "faster_rcnn_R_50_FPN": {},
    "mask_rcnn_R_50_FPN": {"mask_convs": 4},
    "cascade_mask_rcnn_R_50_FPN": {"cascade": 3, "agnostic_boxes": True, "mask_convs": 4},
}


def on_meta(names: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in names.items()}


def shapes(state_dict: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in state_dict.items()}


def imported_model(folder: Path, name: str, content: dict[str, Any]) -> nn.Module:
    """What import-config makes of a YAML, on the meta device."""
    experiment = Config.from_text(yaml.safe_dump(translate(write_file(folder, name, content))), name).build()
    number = experiment.num_classes or 80
    with torch.device("meta"):
        return build_model(experiment, [Category(i + 1, str(i)) for i in range(number)], torch.device("meta"))


@pytest.mark.parametrize("name", LIKE_GOLDEN)
def test_the_rules_give_the_names_that_detectron2_wrote(name: str) -> None:
    assert zoo_names(**LIKE_GOLDEN[name]) == json.loads((GOLDEN / f"{name}_names.json").read_text())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_of_the_zoo_fills_its_model_exactly(tmp_path: Path, name: str) -> None:
    """Published files have pixel means and anchors beside the weights."""
    content, rules = FAMILIES[name]
    if name.startswith("fast_rcnn"):
        content["DATASETS"] = {"PROPOSAL_FILES_TRAIN": "('a.pkl',)", "PROPOSAL_FILES_TEST": "('b.pkl',)"}
    beside = {
        "pixel_mean": [3, 1, 1],
        "pixel_std": [3, 1, 1],
        "proposal_generator.anchor_generator.cell_anchors.0": [3, 4],
    }
    converted = from_detectron2(on_meta(zoo_names(**rules) | beside))
    assert converted.unused == []
    assert converted.left_out.keys() == beside.keys()
    assert shapes(converted.state_dict) == shapes(imported_model(tmp_path, name, content).state_dict())


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("faster_rcnn_R_50_FPN", {"depth": 50}),
        ("faster_rcnn_R_101_DilatedC5", {"depth": 101}),
        ("mask_rcnn_R_50_C4", {"depth": 50}),
        ("faster_rcnn_X_101_32x8d_FPN", {"depth": 101, **X101}),
        ("mask_rcnn_R_50_FPN_GN", {"depth": 50, "norm": "gn"}),
    ],
)
def test_caffe2s_classifiers_fill_every_stage(tmp_path: Path, name: str, rules: dict[str, Any]) -> None:
    converted = from_caffe2({key: torch.empty(()).expand(shape) for key, shape in caffe2_names(**rules).items()})
    assert converted.unused == []
    assert converted.left_out.keys() <= {"conv1_b", "pred_w", "pred_b"}
    model = imported_model(tmp_path, name, FAMILIES[name][0])
    given = shapes(res5_where_the_model_has_it(converted.state_dict, model))
    wanted = {
        key: shape for key, shape in shapes(model.state_dict()).items() if key.startswith("backbone.") or "res5" in key
    }
    assert given == wanted
