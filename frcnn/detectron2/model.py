"""detectron2's MODEL section as our `model`: image preparation, backbone, neck, proposals."""

from __future__ import annotations

from typing import Any

from frcnn.detectron2.losses import box_loss, norm, with_loss_weight
from frcnn.detectron2.roi_heads import roi_heads
from frcnn.detectron2.settings import Settings

_FPN_BACKBONE = "build_resnet_fpn_backbone"
_BOTTLENECKS = (50, 101, 152)
_DEPTHS = (18, 34, *_BOTTLENECKS)


def model(s: Settings) -> dict[str, Any]:
    """The node `model`."""
    architecture = s["MODEL.META_ARCHITECTURE"]
    if architecture not in ("GeneralizedRCNN", "ProposalNetwork"):
        s.refuse("MODEL.META_ARCHITECTURE", "only GeneralizedRCNN and ProposalNetwork have a counterpart")
    order = s["INPUT.FORMAT"]
    if order not in ("BGR", "RGB"):
        s.refuse("INPUT.FORMAT", "images are RGB or BGR here (model.channel_order)")
    has_rois = architecture != "ProposalNetwork"
    if not has_rois:
        s.without_effect("MODEL.ROI_", "MODEL.MASK_ON", "MODEL.KEYPOINT_ON")
    return {
        "name": "FasterRCNN",
        "channel_order": order,
        "pixel_mean": s["MODEL.PIXEL_MEAN"],
        "pixel_std": s["MODEL.PIXEL_STD"],
        "backbone": _backbone(s),
        "necks": _necks(s),
        "proposal_generator": _proposal_generator(s),
        "roi_heads": roi_heads(s) if has_rois else None,
    }


def _backbone(s: Settings) -> dict[str, Any]:
    name = s["MODEL.BACKBONE.NAME"]
    if name not in ("build_resnet_backbone", _FPN_BACKBONE):
        s.refuse(
            "MODEL.BACKBONE.NAME",
            "only ResNets and ResNeXts, with FPN or without, are translated; choose a "
            "model.backbone by hand (frcnn train --help model.backbone)",
        )
    depth, groups, width = (s[f"MODEL.RESNETS.{key}"] for key in ("DEPTH", "NUM_GROUPS", "WIDTH_PER_GROUP"))
    node: dict[str, Any] = {"name": "ResNet" if groups == 1 else "ResNeXt", "depth": depth}
    if groups > 1:
        node |= {"groups": groups, "width_per_group": width}
    elif width != 64:
        node["width_per_group"] = width
    depths = _DEPTHS if groups == 1 else _BOTTLENECKS
    if depth not in depths:
        s.refuse("MODEL.RESNETS.DEPTH", f"with NUM_GROUPS {groups} it must be one of {', '.join(map(str, depths))}")
    stem = s["MODEL.RESNETS.STEM_OUT_CHANNELS"]
    if depth in depths and s["MODEL.RESNETS.RES2_OUT_CHANNELS"] != (4 * stem if depth in _BOTTLENECKS else stem):
        s.refuse(
            "MODEL.RESNETS.RES2_OUT_CHANNELS",
            "res2 follows from the stem here: four times as wide, with a depth below "
            "50 equally wide; model.backbone.stem_channels changes both",
        )
    return node | {
        "norm": norm(s, "MODEL.RESNETS.NORM"),
        "freeze_at": s["MODEL.BACKBONE.FREEZE_AT"],
        "stride_in_1x1": s["MODEL.RESNETS.STRIDE_IN_1X1"],
        "stem_channels": stem,
        "out_features": s["MODEL.RESNETS.OUT_FEATURES"],
        "res5_dilation": s["MODEL.RESNETS.RES5_DILATION"],
        **_deformable(s),
    }


def _deformable(s: Settings) -> dict[str, Any]:
    per_stage = s["MODEL.RESNETS.DEFORM_ON_PER_STAGE"]
    if not any(per_stage):
        s.without_effect("MODEL.RESNETS.DEFORM_")
        return {}
    stages = [f"res{number}" for number, is_deformable in enumerate(per_stage, start=2) if is_deformable]
    modulated, groups = s["MODEL.RESNETS.DEFORM_MODULATED"], s["MODEL.RESNETS.DEFORM_NUM_GROUPS"]
    return {"deformable": {"stages": stages, "modulated": modulated, "groups": groups}}


def _necks(s: Settings) -> list[dict[str, Any]]:
    if s["MODEL.BACKBONE.NAME"] != _FPN_BACKBONE:
        s.without_effect("MODEL.FPN.")
        return []
    return [
        {
            "name": "FPN",
            "in_features": s["MODEL.FPN.IN_FEATURES"],
            "out_channels": s["MODEL.FPN.OUT_CHANNELS"],
            "norm": norm(s, "MODEL.FPN.NORM", none=True),
        }
    ]


def _proposal_generator(s: Settings) -> dict[str, Any]:
    name = s["MODEL.PROPOSAL_GENERATOR.NAME"]
    if name == "PrecomputedProposals":
        return _precomputed(s)
    if name != "RPN":
        where = "; rotated boxes are a project (projects/rotated)" if name == "RRPN" else ""
        s.refuse("MODEL.PROPOSAL_GENERATOR.NAME", f"only RPN and PrecomputedProposals are translated{where}")
    if s["MODEL.RPN.HEAD_NAME"] != "StandardRPNHead":
        s.refuse("MODEL.RPN.HEAD_NAME", "only StandardRPNHead is translated, as ConvRPNHead")
    if any(width not in (-1, s["MODEL.FPN.OUT_CHANNELS"]) for width in s["MODEL.RPN.CONV_DIMS"]):
        s.refuse("MODEL.RPN.CONV_DIMS", "the convolutions of ConvRPNHead are as wide as its input (-1)")
    low, high = s["MODEL.RPN.IOU_THRESHOLDS"]
    weight = s["MODEL.RPN.LOSS_WEIGHT"]
    return {
        "name": "RegionProposalNetwork",
        "in_features": s["MODEL.RPN.IN_FEATURES"],
        "anchor_generator": _anchor_generator(s),
        "head": {"name": "ConvRPNHead", "num_convs": len(s["MODEL.RPN.CONV_DIMS"])},
        "matcher": {
            "name": "IoUMatcher",
            "high_threshold": high,
            "low_threshold": low,
            "allow_low_quality_matches": True,
        },
        "sampler": {
            "name": "BalancedPositiveNegativeSampler",
            "batch_size_per_image": s["MODEL.RPN.BATCH_SIZE_PER_IMAGE"],
            "positive_fraction": s["MODEL.RPN.POSITIVE_FRACTION"],
        },
        "box_coder": {"weights": s["MODEL.RPN.BBOX_REG_WEIGHTS"]},
        "objectness_loss": with_loss_weight({"name": "BinaryCrossEntropy"}, weight),
        "box_loss": with_loss_weight(box_loss(s, "MODEL.RPN"), weight * s["MODEL.RPN.BBOX_REG_LOSS_WEIGHT"]),
        "pre_nms_top_n": {"train": s["MODEL.RPN.PRE_NMS_TOPK_TRAIN"], "test": s["MODEL.RPN.PRE_NMS_TOPK_TEST"]},
        "post_nms_top_n": {"train": s["MODEL.RPN.POST_NMS_TOPK_TRAIN"], "test": s["MODEL.RPN.POST_NMS_TOPK_TEST"]},
        "nms": {"name": "NMS", "iou_threshold": s["MODEL.RPN.NMS_THRESH"]},
        "min_size": s["MODEL.PROPOSAL_GENERATOR.MIN_SIZE"],
    }


def _precomputed(s: Settings) -> dict[str, Any]:
    if not s["MODEL.LOAD_PROPOSALS"]:
        s.refuse("MODEL.LOAD_PROPOSALS", "PrecomputedProposals has nothing to hand on without it")
    if s["MODEL.PROPOSAL_GENERATOR.MIN_SIZE"]:
        s.refuse("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", "PrecomputedProposals keeps proposals of every size")
    s.without_effect("MODEL.RPN.", "MODEL.ANCHOR_GENERATOR.")
    top_n = {split.lower(): s[f"DATASETS.PRECOMPUTED_PROPOSAL_TOPK_{split}"] for split in ("TRAIN", "TEST")}
    return {"name": "PrecomputedProposals", "top_n": top_n}


def _anchor_generator(s: Settings) -> dict[str, Any]:
    if s["MODEL.ANCHOR_GENERATOR.NAME"] != "DefaultAnchorGenerator":
        s.refuse(
            "MODEL.ANCHOR_GENERATOR.NAME",
            "only DefaultAnchorGenerator is translated, as GridAnchorGenerator; rotated "
            "boxes are a project (projects/rotated)",
        )
    s.without_effect("MODEL.ANCHOR_GENERATOR.ANGLES")
    levels = len(s["MODEL.RPN.IN_FEATURES"])
    sizes, ratios = (_lists(s[f"MODEL.ANCHOR_GENERATOR.{key}"]) for key in ("SIZES", "ASPECT_RATIOS"))
    return {
        "name": "GridAnchorGenerator",
        "sizes": sizes * levels if len(sizes) == 1 else sizes,
        "aspect_ratios": ratios[0] if len(ratios) == 1 else ratios,
        "offset": s["MODEL.ANCHOR_GENERATOR.OFFSET"],
    }


def _lists(values: tuple[Any, ...]) -> tuple[tuple[float, ...], ...]:
    """A list of numbers is one list for all levels."""
    return values if any(isinstance(value, tuple) for value in values) else (values,)
