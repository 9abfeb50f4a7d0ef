"""Names of classifiers other than ResNets under ours: torchvision's RegNet and ViT, and plain ViTs of MAE and timm."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from frcnn.checkpoint.renaming import Rule

REGNET_RULES = (
    Rule(r"stem\.(\d\..+)", r"backbone.features.0.\1"),
    Rule(r"trunk_output\.block(\d)\.(.+)", r"backbone.features.\1.\2"),
)

_BLOCK = r"encoder\.layers\.encoder_layer_(\d+)\."
VIT_RULES = (
    Rule(r"conv_proj\.(\w+)", r"backbone.patch_embed.proj.\1"),
    Rule(r"encoder\.pos_embedding", "backbone.pos_embed"),
    Rule(_BLOCK + r"ln_(\d)\.(\w+)", r"backbone.blocks.\1.norm\2.\3"),
    Rule(_BLOCK + r"self_attention\.in_proj_(\w+)", r"backbone.blocks.\1.attn.qkv.\2"),
    Rule(_BLOCK + r"self_attention\.out_proj\.(\w+)", r"backbone.blocks.\1.attn.proj.\2"),
    Rule(_BLOCK + r"mlp\.0\.(\w+)", r"backbone.blocks.\1.mlp.fc1.\2"),
    Rule(_BLOCK + r"mlp\.3\.(\w+)", r"backbone.blocks.\1.mlp.fc2.\2"),
    # before torchvision 0.14
    Rule(_BLOCK + r"mlp\.linear_(\d)\.(\w+)", r"backbone.blocks.\1.mlp.fc\2.\3"),
    # MAE's and timm's names are ours
    Rule(r"(pos_embed|patch_embed\.proj\.\w+|blocks\..+)", r"backbone.\1"),
)

BACKBONES_LEFT_OUT = (
    (r"class_token|cls_token", "a detector has no class token"),
    (r"(?:encoder\.ln|norm|fc_norm)\.(?:weight|bias)", "the norm before the classifier's last layer"),
)


def without_class_token(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Takes the position of the class token, the first, off those of a ViT: a detector has no such token.

    Args:
        state_dict: by our names.
    """
    weights = dict(state_dict)
    positions = weights.get("backbone.pos_embed")  # [1, 1 + patches, C]; the patches are a square
    if positions is not None and int((positions.shape[1] - 1) ** 0.5) ** 2 == positions.shape[1] - 1:
        weights["backbone.pos_embed"] = positions[:, 1:]
    return weights
