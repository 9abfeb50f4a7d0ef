"""detectron2's YAML files, as far as a config goes beyond the defaults: what its bases and its baselines say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_FPN_LEVELS = ["res2", "res3", "res4", "res5"]
_ON_COCO: dict[str, Any] = {
    "DATASETS": {"TRAIN": "('coco_2017_train',)", "TEST": "('coco_2017_val',)"},
    "SOLVER": {"IMS_PER_BATCH": 16, "BASE_LR": 0.02, "STEPS": "(60000, 80000)", "MAX_ITER": 90000},
    "INPUT": {"MIN_SIZE_TRAIN": "(640, 672, 704, 736, 768, 800)"},
    "VERSION": 2,
}
_SHARED_HEADS = {
    "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "POOLER_RESOLUTION": 7},
    "ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 4, "POOLER_RESOLUTION": 14},
}

BASES: dict[str, dict[str, Any]] = {
    "Base-RCNN-FPN.yaml": {
        "MODEL": {
            "META_ARCHITECTURE": "GeneralizedRCNN",
            "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
            "RESNETS": {"OUT_FEATURES": _FPN_LEVELS},
            "FPN": {"IN_FEATURES": _FPN_LEVELS},
            "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128], [256], [512]], "ASPECT_RATIOS": [[0.5, 1.0, 2.0]]},
            "RPN": {
                "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
                **{"PRE_NMS_TOPK_TRAIN": 2000, "PRE_NMS_TOPK_TEST": 1000},
                **{"POST_NMS_TOPK_TRAIN": 1000, "POST_NMS_TOPK_TEST": 1000},
            },
            "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["p2", "p3", "p4", "p5"]},
            **_SHARED_HEADS,
        },
        **_ON_COCO,
    },
    "Base-RCNN-C4.yaml": {
        "MODEL": {
            "META_ARCHITECTURE": "GeneralizedRCNN",
            "RPN": {"PRE_NMS_TOPK_TEST": 6000, "POST_NMS_TOPK_TEST": 1000},
            "ROI_HEADS": {"NAME": "Res5ROIHeads"},
        },
        **_ON_COCO,
    },
    "Base-RCNN-DilatedC5.yaml": {
        "MODEL": {
            "META_ARCHITECTURE": "GeneralizedRCNN",
            "RESNETS": {"OUT_FEATURES": ["res5"], "RES5_DILATION": 2},
            "RPN": {"IN_FEATURES": ["res5"], "PRE_NMS_TOPK_TEST": 6000, "POST_NMS_TOPK_TEST": 1000},
            "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["res5"]},
            **_SHARED_HEADS,
        },
        **_ON_COCO,
    },
}

_THREE_TIMES = {"SOLVER": {"STEPS": "(210000, 250000)", "MAX_ITER": 270000}}


def _baseline(base: str, model: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"_BASE_": f"../{base}", "MODEL": {"MASK_ON": False, "RESNETS": {"DEPTH": 50}, **model}, **more}


_CASCADE = {
    "MASK_ON": True,
    "ROI_HEADS": {"NAME": "CascadeROIHeads"},
    "ROI_BOX_HEAD": {"CLS_AGNOSTIC_BBOX_REG": True},
    "RPN": {"POST_NMS_TOPK_TRAIN": 2000},
}
_RESNEXT = {
    "PIXEL_STD": [57.375, 57.12, 58.395],
    "RESNETS": {"STRIDE_IN_1X1": False, "NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8, "DEPTH": 101},
}
_KEYPOINTS = {
    "KEYPOINT_ON": True,
    "ROI_HEADS": {"NUM_CLASSES": 1},
    "ROI_BOX_HEAD": {"SMOOTH_L1_BETA": 0.5},
    "RPN": {"POST_NMS_TOPK_TRAIN": 1500},
}

BASELINES: dict[str, dict[str, Any]] = {
    "faster_rcnn_R_50_FPN_1x": _baseline(
        "Base-RCNN-FPN.yaml", {"WEIGHTS": "detectron2://ImageNetPretrained/MSRA/R-50.pkl"}
    ),
    "faster_rcnn_R_50_C4_1x": _baseline("Base-RCNN-C4.yaml", {}),
    "faster_rcnn_R_50_DC5_1x": _baseline("Base-RCNN-DilatedC5.yaml", {}),
    "faster_rcnn_R_101_FPN_3x": _baseline("Base-RCNN-FPN.yaml", {"RESNETS": {"DEPTH": 101}}, **_THREE_TIMES),
    "faster_rcnn_X_101_32x8d_FPN_3x": _baseline("Base-RCNN-FPN.yaml", _RESNEXT, **_THREE_TIMES),
    "mask_rcnn_R_50_FPN_1x": _baseline("Base-RCNN-FPN.yaml", {"MASK_ON": True}),
    "mask_rcnn_R_50_C4_1x": _baseline("Base-RCNN-C4.yaml", {"MASK_ON": True}),
    "mask_rcnn_R_50_DC5_1x": _baseline("Base-RCNN-DilatedC5.yaml", {"MASK_ON": True}),
    "cascade_mask_rcnn_R_50_FPN_1x": _baseline("Base-RCNN-FPN.yaml", _CASCADE),
    "keypoint_rcnn_R_50_FPN_1x": _baseline(
        "Base-RCNN-FPN.yaml",
        _KEYPOINTS,
        DATASETS={"TRAIN": "('keypoints_coco_2017_train',)", "TEST": "('keypoints_coco_2017_val',)"},
    ),
    "rpn_R_50_FPN_1x": _baseline(
        "Base-RCNN-FPN.yaml", {"META_ARCHITECTURE": "ProposalNetwork", "RPN": {"POST_NMS_TOPK_TEST": 2000}}
    ),
}


def write_file(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Writes a baseline beside the bases, as detectron2 has them."""
    for base, said in BASES.items():
        (folder / base).write_text(yaml.safe_dump(said), encoding="utf-8")
    path = folder / "COCO" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
