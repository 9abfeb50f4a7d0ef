"""detectron2's ROI heads and what follows the boxes, as our `model.roi_heads`."""

from __future__ import annotations

from typing import Any

from frcnn.detectron2.losses import box_loss, norm, with_loss_weight
from frcnn.detectron2.settings import Settings

_BOX, _MASK, _KEYPOINT = "MODEL.ROI_BOX_HEAD", "MODEL.ROI_MASK_HEAD", "MODEL.ROI_KEYPOINT_HEAD"
_OWN_HEAD = tuple(f"{_BOX}.{key}" for key in ("NAME", "NUM_FC", "FC_DIM", "NUM_CONV", "CONV_DIM", "NORM"))


def roi_heads(s: Settings) -> dict[str, Any]:
    """The node `model.roi_heads`: standard, of C4 models, or a cascade."""
    name = s["MODEL.ROI_HEADS.NAME"]
    if name not in ("StandardROIHeads", "Res5ROIHeads", "CascadeROIHeads"):
        s.refuse("MODEL.ROI_HEADS.NAME", "only StandardROIHeads, Res5ROIHeads and CascadeROIHeads are translated")
    is_cascade, is_c4 = name == "CascadeROIHeads", name == "Res5ROIHeads"
    node: dict[str, Any] = {
        "name": name,
        "in_features": s["MODEL.ROI_HEADS.IN_FEATURES"],
        **(_stages(s) if is_cascade else _one_stage(s)),
        "pooler": _pooler(s, _BOX),
        **(_res5(s) if is_c4 else {"box_head": _box_head(s)}),
        "postprocess": {
            "score_thresh": s["MODEL.ROI_HEADS.SCORE_THRESH_TEST"],
            "detections_per_image": s["TEST.DETECTIONS_PER_IMAGE"],
            "nms": {"name": "NMS", "iou_threshold": s["MODEL.ROI_HEADS.NMS_THRESH_TEST"]},
        },
        "branches": _branches(s, shares_res5=is_c4),
        "append_gt": s["MODEL.ROI_HEADS.PROPOSAL_APPEND_GT"],
    }
    if not is_cascade:
        s.without_effect("MODEL.ROI_BOX_CASCADE_HEAD.")
    if s[f"{_BOX}.TRAIN_ON_PRED_BOXES"]:
        if name == "StandardROIHeads":
            node["train_on_pred_boxes"] = True
        else:
            s.refuse(f"{_BOX}.TRAIN_ON_PRED_BOXES", "only StandardROIHeads have it")
    return node


def _one_stage(s: Settings) -> dict[str, Any]:
    thresholds = s["MODEL.ROI_HEADS.IOU_THRESHOLDS"]
    if len(thresholds) != 1:
        s.refuse("MODEL.ROI_HEADS.IOU_THRESHOLDS", "one threshold is translated")
    return {
        "matcher": _matcher(thresholds[0]),
        "sampler": _sampler(s),
        "box_predictor": _box_predictor(s, s[f"{_BOX}.BBOX_REG_WEIGHTS"]),
    }


def _stages(s: Settings) -> dict[str, Any]:
    s.without_effect("MODEL.ROI_HEADS.IOU_THRESHOLDS", f"{_BOX}.BBOX_REG_WEIGHTS")
    thresholds = s["MODEL.ROI_BOX_CASCADE_HEAD.IOUS"]
    weights_of_stages = s["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"]
    if len(thresholds) != len(weights_of_stages):
        s.refuse("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", f"{len(weights_of_stages)} stages have BBOX_REG_WEIGHTS")
    stages = []
    for number, (threshold, weights) in enumerate(zip(thresholds, weights_of_stages, strict=False)):
        stage = {"matcher": _matcher(threshold), "box_predictor": _box_predictor(s, weights)}
        stages.append({**stage, "sampler": _sampler(s)} if number == 0 else stage)
    return {"stages": stages}


def _matcher(threshold: float) -> dict[str, Any]:
    return {"name": "IoUMatcher", "high_threshold": threshold, "low_threshold": threshold}


def _sampler(s: Settings) -> dict[str, Any]:
    return {
        "name": "BalancedPositiveNegativeSampler",
        "batch_size_per_image": s["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"],
        "positive_fraction": s["MODEL.ROI_HEADS.POSITIVE_FRACTION"],
    }


def _box_predictor(s: Settings, weights: tuple[float, ...]) -> dict[str, Any]:
    return {
        "name": "FastRCNNPredictor",
        "class_agnostic": s[f"{_BOX}.CLS_AGNOSTIC_BBOX_REG"],
        "box_coder": {"weights": weights},
        "class_loss": {"name": "SoftmaxCrossEntropy"},
        "box_loss": with_loss_weight(box_loss(s, _BOX), s[f"{_BOX}.BBOX_REG_LOSS_WEIGHT"]),
    }


def _pooler(s: Settings, section: str) -> dict[str, Any]:
    kind, ratio = s[f"{section}.POOLER_TYPE"], s[f"{section}.POOLER_SAMPLING_RATIO"]
    size = {"resolution": s[f"{section}.POOLER_RESOLUTION"]}
    if kind == "ROIPool":
        return {"name": "ROIPool", **size}
    if kind not in ("ROIAlign", "ROIAlignV2"):
        s.refuse(f"{section}.POOLER_TYPE", "only ROIAlignV2, ROIAlign and ROIPool are translated")
    return {"name": "ROIAlign", **size, "sampling_ratio": ratio, "aligned": kind != "ROIAlign"}


def _box_head(s: Settings) -> dict[str, Any]:
    name, convs, fcs = s[f"{_BOX}.NAME"], s[f"{_BOX}.NUM_CONV"], s[f"{_BOX}.NUM_FC"]
    if name != "FastRCNNConvFCHead":
        s.refuse(f"{_BOX}.NAME", "only FastRCNNConvFCHead is translated, as TwoMLPHead or ConvBoxHead")
    if convs == 0:
        s.without_effect(f"{_BOX}.CONV_DIM", f"{_BOX}.NORM")
    if convs == 0 and fcs == 2:
        return {"name": "TwoMLPHead", "width": s[f"{_BOX}.FC_DIM"]}
    return {
        "name": "ConvBoxHead",
        "num_convs": convs,
        "conv_channels": s[f"{_BOX}.CONV_DIM"],
        "num_fcs": fcs,
        "fc_width": s[f"{_BOX}.FC_DIM"],
        "norm": norm(s, f"{_BOX}.NORM", none=True),
    }


def _res5(s: Settings) -> dict[str, Any]:
    s.without_effect(*_OWN_HEAD)
    for key, expected in (("NUM_GROUPS", 1), ("WIDTH_PER_GROUP", 64), ("DEFORM_ON_PER_STAGE", (False,) * 4)):
        if s[f"MODEL.RESNETS.{key}"] != expected:
            s.refuse(f"MODEL.RESNETS.{key}", "Res5ROIHeads have a plain ResNet's last stage")
    return {
        "depth": s["MODEL.RESNETS.DEPTH"],
        "norm": norm(s, "MODEL.RESNETS.NORM"),
        "stride_in_1x1": s["MODEL.RESNETS.STRIDE_IN_1X1"],
        "stem_channels": s["MODEL.RESNETS.STEM_OUT_CHANNELS"],
    }


def _branches(s: Settings, *, shares_res5: bool) -> dict[str, Any]:
    branches: dict[str, Any] = {}
    if s["MODEL.MASK_ON"]:
        branches["mask"] = _mask_branch(s, shares_res5)
    else:
        s.without_effect(f"{_MASK}.", "INPUT.MASK_FORMAT")
    if s["MODEL.KEYPOINT_ON"]:
        if shares_res5:
            s.refuse("MODEL.KEYPOINT_ON", "detectron2's Res5ROIHeads have no keypoints")
        branches["keypoint"] = _keypoint_branch(s)
    else:
        s.without_effect(f"{_KEYPOINT}.", "TEST.KEYPOINT_OKS_SIGMAS")
    return branches


def _mask_branch(s: Settings, shares_res5: bool) -> dict[str, Any]:
    if s[f"{_MASK}.NAME"] != "MaskRCNNConvUpsampleHead":
        s.refuse(f"{_MASK}.NAME", "only MaskRCNNConvUpsampleHead is translated, as MaskBranch")
    if s["INPUT.MASK_FORMAT"] not in ("polygon", "bitmask"):
        s.refuse("INPUT.MASK_FORMAT", "expected polygon or bitmask")
    if shares_res5:
        s.without_effect(f"{_MASK}.POOLER_")
    own = {} if shares_res5 else {"in_features": s["MODEL.ROI_HEADS.IN_FEATURES"], "pooler": _pooler(s, _MASK)}
    return {
        "name": "MaskBranch",
        **own,
        "num_convs": s[f"{_MASK}.NUM_CONV"],
        "conv_channels": s[f"{_MASK}.CONV_DIM"],
        "norm": norm(s, f"{_MASK}.NORM", none=True),
        "class_agnostic": s[f"{_MASK}.CLS_AGNOSTIC_MASK"],
    }


def _keypoint_branch(s: Settings) -> dict[str, Any]:
    if s[f"{_KEYPOINT}.NAME"] != "KRCNNConvDeconvUpsampleHead":
        s.refuse(f"{_KEYPOINT}.NAME", "only KRCNNConvDeconvUpsampleHead is translated, as KeypointBranch")
    widths, number = s[f"{_KEYPOINT}.CONV_DIMS"], s[f"{_KEYPOINT}.NUM_KEYPOINTS"]
    if len(set(widths)) != 1:
        s.refuse(f"{_KEYPOINT}.CONV_DIMS", "the convolutions of KeypointBranch are equally wide")
    sampler = _sampler(s)
    per_image = number * sampler["batch_size_per_image"] * sampler["positive_fraction"]
    by_visible = s[f"{_KEYPOINT}.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS"]
    return {
        "name": "KeypointBranch",
        "in_features": s["MODEL.ROI_HEADS.IN_FEATURES"],
        "pooler": _pooler(s, _KEYPOINT),
        "num_keypoints": number,
        "num_convs": len(widths),
        "conv_channels": widths[0],
        "normalizer_per_image": None if by_visible else per_image,
        "loss_weight": s[f"{_KEYPOINT}.LOSS_WEIGHT"],
    }
