"""Weights of torchvision's detectors and classifiers under our names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from frcnn.checkpoint.renaming import Converted, Rule, rename
from frcnn.checkpoint.torchvision_backbones import BACKBONES_LEFT_OUT, REGNET_RULES, VIT_RULES, without_class_token

NOT_COCO_LABELS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_LABELS = tuple(label for label in range(91) if label not in NOT_COCO_LABELS)
"""The 80 of the 91 labels of torchvision's published detectors that COCO uses, in the order of our classes."""

_LAST_LEVEL = 5  # both ResNet and MobileNet pyramids end with the input of number 5

_RESNET_RULES = (
    Rule(r"conv1\.(\w+)", r"stem.conv1.\1"),
    Rule(r"bn1\.(\w+)", r"stem.conv1.norm.\1"),
    Rule(r"layer(\d)\.(\d+)\.conv(\d)\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.{m[4]}"),
    Rule(r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.norm.{m[4]}"),
    Rule(r"layer(\d)\.(\d+)\.downsample\.0\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.{m[3]}"),
    Rule(r"layer(\d)\.(\d+)\.downsample\.1\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.norm.{m[3]}"),
)


_BRANCH_RULES = (
    Rule(r"mask_head\.(\d)\.0\.(\w+)", r"mask.head.convs.\1.\2"),
    Rule(r"mask_head\.(\d)\.1\.(\w+)", r"mask.head.convs.\1.norm.\2"),
    Rule(r"mask_head\.mask_fcn(\d)\.(\w+)", lambda m: f"mask.head.convs.{int(m[1]) - 1}.{m[2]}"),
    Rule(r"mask_predictor\.conv5_mask\.(\w+)", r"mask.head.deconv.\1"),
    Rule(r"mask_predictor\.mask_fcn_logits\.(\w+)", r"mask.head.predictor.\1"),
    # torchvision counts the ReLUs between the convolutions of keypoints too.
    Rule(r"keypoint_head\.(\d+)\.(\w+)", lambda m: f"keypoint.head.convs.{int(m[1]) // 2}.{m[2]}"),
    Rule(r"keypoint_predictor\.kps_score_lowres\.(\w+)", r"keypoint.head.deconv.\1"),
)

_LEFT_OUT = ((r"(?:fc|classifier|heads?)\..+", "the classifier's last layers"), *BACKBONES_LEFT_OUT)
_PER_CLASS = ("roi_heads.box_predictor.", "roi_heads.branches.mask.head.predictor.")


def from_torchvision(state_dict: Mapping[str, Tensor], *, labels: Sequence[int] | None = None) -> Converted:
    """Weights of a torchvision Faster R-CNN, or of a classifier (for the backbone), under our names.

    Detectors: `fasterrcnn_resnet50_fpn`, `fasterrcnn_resnet50_fpn_v2`, `fasterrcnn_mobilenet_v3_large_fpn`,
    `fasterrcnn_mobilenet_v3_large_320_fpn`, `maskrcnn_resnet50_fpn`, `maskrcnn_resnet50_fpn_v2` and
    `keypointrcnn_resnet50_fpn`, also under the names they had before torchvision 0.13; masks and keypoints go to the
    branches that a config calls `mask` and `keypoint`. Classifiers: ResNet, ResNeXt, wide ResNet, RegNet, MobileNetV2 and
    V3, EfficientNet, ConvNeXt, Swin and ViT (also with the names of MAE and timm). torchvision's background is the first
    class and ours the last; it has boxes and masks for the background and we do not.

    The v1 weights that torchvision publishes (`FasterRCNN_ResNet50_FPN_Weights.COCO_V1`) were trained with a norm whose
    eps was 0: build `ResNet` with `norm_eps: 0` for them. Its MobileNet detectors need `norm_eps: 1e-5`.

    Args:
        state_dict: what torchvision's model returns or its file holds.
        labels: which of torchvision's labels (1 is the first object) become our classes 0, 1, ...; `COCO_LABELS` for
            the 80 classes of COCO out of the published 91 slots; None keeps all.

    Returns:
        our state dict, the names for which we have no use, and why those of a classifier's last layers are left out.

    Raises:
        ValueError: a label that the weights do not have.
    """
    if not any(name.startswith("backbone.body.") for name in state_dict):
        converted = rename(state_dict, _classifier_rules(), _LEFT_OUT)
        return replace(converted, state_dict=without_class_token(converted.state_dict))
    converted = rename(state_dict, _detector_rules(state_dict))
    weights = dict(converted.state_dict)
    for name in weights:
        if name.startswith(_PER_CLASS):
            weights[name] = _our_classes(name, weights[name], labels)
    return replace(converted, state_dict=weights)


def _classifier_rules() -> list[Rule]:
    return [
        *(rule.under("", "backbone.") for rule in _RESNET_RULES),
        *REGNET_RULES,
        *VIT_RULES,
        Rule(r"features\.(.+)", r"backbone.features.\1"),
    ]


def _detector_rules(state_dict: Mapping[str, Tensor]) -> list[Rule]:
    num_levels = len({name.split(".")[3] for name in state_dict if name.startswith("backbone.fpn.inner_blocks.")})

    def level(index: str) -> str:
        return f"p{_LAST_LEVEL - num_levels + 1 + int(index)}"

    sides = {"inner": "lateral", "layer": "output"}
    return [
        *(rule.under(r"backbone\.body\.", "backbone.") for rule in _RESNET_RULES),
        Rule(r"backbone\.body\.(\d+\..+)", r"backbone.features.\1"),
        # Before torchvision 0.13 the convolutions of FPN and RPN had no index of their own: "(?:0\.)?" reads both.
        Rule(
            r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(?:0\.)?(weight|bias)",
            lambda m: f"necks.0.{sides[m[1]]}.{level(m[2])}.{m[3]}",
        ),
        Rule(
            r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.1\.(\w+)",
            lambda m: f"necks.0.{sides[m[1]]}.{level(m[2])}.norm.{m[3]}",
        ),
        Rule(r"rpn\.head\.conv\.(weight|bias)", r"proposal_generator.head.convs.0.\1"),
        Rule(r"rpn\.head\.conv\.(\d)\.0\.(\w+)", r"proposal_generator.head.convs.\1.\2"),
        Rule(r"rpn\.head\.cls_logits\.(\w+)", r"proposal_generator.head.objectness.\1"),
        Rule(r"rpn\.head\.bbox_pred\.(\w+)", r"proposal_generator.head.deltas.\1"),
        Rule(r"roi_heads\.box_head\.fc([67])\.(\w+)", lambda m: f"roi_heads.box_head.fc{int(m[1]) - 5}.{m[2]}"),
        Rule(r"roi_heads\.box_head\.(\d)\.0\.(\w+)", r"roi_heads.box_head.convs.\1.\2"),
        Rule(r"roi_heads\.box_head\.(\d)\.1\.(\w+)", r"roi_heads.box_head.convs.\1.norm.\2"),
        Rule(r"roi_heads\.box_head\.5\.(weight|bias)", r"roi_heads.box_head.fcs.0.\1"),
        Rule(r"(roi_heads\.box_predictor\.(?:cls_score|bbox_pred)\.\w+)", r"\1"),
        *(rule.under(r"roi_heads\.", "roi_heads.branches.") for rule in _BRANCH_RULES),
    ]


def _our_classes(name: str, weight: Tensor, labels: Sequence[int] | None) -> Tensor:
    """Rows of a predictor in our order: the classes, and behind them (of the class logits only) the background."""
    per_class = 4 if ".bbox_pred." in name else 1
    rows = weight.unflatten(0, (-1, per_class))  # [1 + labels, 4 or 1, ...]
    chosen = list(range(1, len(rows))) if labels is None else list(labels)
    wrong = [label for label in chosen if not 1 <= label < len(rows)]
    if wrong:
        raise ValueError(f"labels must be in 1..{len(rows) - 1}, the objects of these weights; got {wrong}")
    background = [0] if ".cls_score." in name else []
    return rows[torch.tensor(chosen + background)].flatten(0, 1)
