"""Weights of detectron2's detectors under our names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from frcnn.checkpoint.renaming import Converted, Rule, rename

_RESNET = r"(?:stem|res[2-5])\..+"

_RULES = (
    Rule(r"(?:backbone\.)?(?:bottom_up\.)?(res[2-5]\.\d+\.conv2)_offset\.(\w+)", r"backbone.\1.offset.\2"),
    Rule(rf"(?:backbone\.)?(?:bottom_up\.)?({_RESNET})", r"backbone.\1"),
    Rule(r"backbone\.fpn_(lateral|output)(\d)\.(.+)", r"necks.0.\1.p\2.\3"),
    Rule(r"backbone\.top_block\.p6\.(\w+)", r"necks.0.top_block.first.\1"),
    Rule(r"backbone\.top_block\.p7\.(\w+)", r"necks.0.top_block.second.\1"),
    Rule(r"proposal_generator\.rpn_head\.conv\.(weight|bias)", r"proposal_generator.head.convs.0.\1"),
    Rule(r"proposal_generator\.rpn_head\.conv\.conv(\d)\.(\w+)", r"proposal_generator.head.convs.\1.\2"),
    Rule(r"proposal_generator\.rpn_head\.objectness_logits\.(\w+)", r"proposal_generator.head.objectness.\1"),
    Rule(r"proposal_generator\.rpn_head\.anchor_deltas\.(\w+)", r"proposal_generator.head.deltas.\1"),
    # A cascade has a number behind box_head and box_predictor, in detectron2 as here.
    Rule(r"(roi_heads\.box_head\.(?:\d\.)?fc[12]\.\w+)", r"\1"),
    Rule(
        r"roi_heads\.box_head\.((?:\d\.)?)conv(\d)\.(.+)",
        lambda m: f"roi_heads.box_head.{m[1]}convs.{int(m[2]) - 1}.{m[3]}",
    ),
    Rule(r"(roi_heads\.box_predictor\.(?:\d\.)?(?:cls_score|bbox_pred)\.\w+)", r"\1"),
    Rule(r"roi_heads\.(res5\..+)", r"roi_heads.box_head.\1"),
    Rule(
        r"roi_heads\.mask_head\.mask_fcn(\d)\.(.+)",
        lambda m: f"roi_heads.branches.mask.head.convs.{int(m[1]) - 1}.{m[2]}",
    ),
    Rule(r"roi_heads\.mask_head\.(deconv|predictor)\.(\w+)", r"roi_heads.branches.mask.head.\1.\2"),
    Rule(
        r"roi_heads\.keypoint_head\.conv_fcn(\d)\.(\w+)",
        lambda m: f"roi_heads.branches.keypoint.head.convs.{int(m[1]) - 1}.{m[2]}",
    ),
    Rule(r"roi_heads\.keypoint_head\.score_lowres\.(\w+)", r"roi_heads.branches.keypoint.head.deconv.\1"),
)

_LEFT_OUT = (
    (r"proposal_generator\.anchor_generator\..+", "anchors are made from the config"),
    (r"(?:\w+\.)?pixel_(?:mean|std)", "the config says them"),
    (r"(?:stem\.)?(?:fc|linear)\.(?:weight|bias)", "the classifier's last layer"),
)


def from_detectron2(state_dict: Mapping[str, Tensor]) -> Converted:
    """Weights of a detectron2 detector, or of one of its ResNets, under our names.

    Faster, Mask, Keypoint and Cascade R-CNN with FPN, C4 or DC5; masks and keypoints go to the branches that a config
    calls `mask` and `keypoint`. Classes need no change: the background is
    last in both. What images the models of its zoo were trained on is said by `frcnn.checkpoint.conventions`.

    A head with convolutions and one fully connected layer calls that layer fc1, which is `TwoMLPHead`'s name too: it is
    told apart by its convolutions.

    Args:
        state_dict: tensors by detectron2's names.

    Returns:
        our state dict, and the names for which we have no use.
    """
    converted = rename(state_dict, _RULES, _LEFT_OUT)
    if not any(".convs." in name for name in converted.state_dict if name.startswith("roi_heads.box_head.")):
        return converted
    return replace(
        converted,
        state_dict={_fc_behind_convs(name): tensor for name, tensor in converted.state_dict.items()},
        origins={_fc_behind_convs(name): theirs for name, theirs in converted.origins.items()},
    )


def _fc_behind_convs(name: str) -> str:
    """`ConvBoxHead` numbers its fully connected layers and the ReLUs between them: fc1 is fcs.0, fc2 is fcs.2."""
    if not name.startswith("roi_heads.box_head."):
        return name
    return name.replace(".fc1.", ".fcs.0.").replace(".fc2.", ".fcs.2.")
