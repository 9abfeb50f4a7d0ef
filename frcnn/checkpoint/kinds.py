"""Which framework a file of weights comes from, told by the names in it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from torch import Tensor

from frcnn.checkpoint.save import FORMAT


class Kind(StrEnum):
    """What a file holds, in words for a message."""

    FRCNN = "a checkpoint of frcnn"
    TORCHVISION_DETECTOR = "the state dict of a torchvision detector"
    TORCHVISION_CLASSIFIER = "the state dict of a torchvision classifier"
    VIT = "the state dict of a ViT by MAE's or timm's names"
    DETECTRON2 = "a detectron2 model"
    CAFFE2 = "a Caffe2 classifier (Detectron's ImageNet weights)"
    STATE_DICT = "a state dict with names of its own"
    UNKNOWN = "no weights at all"


def detect_kind(content: Any) -> Kind:
    """Which framework wrote what was read from a file.

    Args:
        content: what was read: a state dict, or a dict with one under "model", "state_dict" or "blobs".

    Returns:
        The kind; UNKNOWN if there is no tensor under a string.
    """
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        return Kind.FRCNN
    names = state_dict_of(content).keys()
    if not names:
        return Kind.UNKNOWN
    if _any_starts(names, "proposal_generator.head."):
        return Kind.STATE_DICT  # ours, without a config
    if _any_starts(names, "backbone.bottom_up.", "proposal_generator.rpn_head.", "stem.conv1.", "res2.0."):
        return Kind.DETECTRON2
    if _any_starts(names, "rpn.head.", "backbone.body.", "backbone.fpn.", "roi_heads.box_predictor.cls_score."):
        return Kind.TORCHVISION_DETECTOR
    if _any_starts(names, "res2_0_branch", "res_conv1_bn_"):
        return Kind.CAFFE2
    if _any_starts(names, "layer1.0.", "features.0.", "trunk_output.block1.", "encoder.layers.encoder_layer_0."):
        return Kind.TORCHVISION_CLASSIFIER
    if _any_starts(names, "patch_embed.proj."):
        return Kind.VIT
    return Kind.STATE_DICT


def state_dict_of(content: Any) -> dict[str, Tensor]:
    """The tensors of a file by name: the file itself, or what it holds under "model", "state_dict" or "blobs".

    The "module." that DistributedDataParallel puts before every name is taken off.
    """
    entries = entries_of(content)
    tensors = {name: value for name, value in entries.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def entries_of(content: Any) -> Mapping[Any, Any]:
    """What lies where the tensors of a file lie, whether it is a tensor or not."""
    if not isinstance(content, Mapping):
        return {}
    for key in ("model", "state_dict", "blobs"):
        if isinstance(content.get(key), Mapping):
            return content[key]
    return content


def _any_starts(names: Any, *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in names)
