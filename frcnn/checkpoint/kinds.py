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
    DETECTRON2 = "a detectron2 model"
    STATE_DICT = "a state dict with names of its own"
    UNKNOWN = "no weights at all"


def detect_kind(content: Any) -> Kind:
    """Which framework wrote what was read from a file.

    Args:
        content: what `torch.load` returned: a state dict, or a dict with one under "model" or "state_dict".

    Returns:
        The kind; UNKNOWN if there is no tensor under a string.
    """
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        return Kind.FRCNN
    names = state_dict_of(content).keys()
    if not names:
        return Kind.UNKNOWN
    if _any_starts(names, "rpn.head.", "backbone.body.", "backbone.fpn.", "roi_heads.box_predictor.cls_score."):
        # both have roi_heads.box_predictor; only detectron2 has a proposal_generator
        return Kind.DETECTRON2 if _any_starts(names, "proposal_generator.") else Kind.TORCHVISION_DETECTOR
    if _any_starts(names, "backbone.bottom_up.", "proposal_generator.rpn_head.", "stem.conv1.", "res2.0."):
        return Kind.DETECTRON2
    if _any_starts(names, "layer1.0.", "features.0."):
        return Kind.TORCHVISION_CLASSIFIER
    return Kind.STATE_DICT


def state_dict_of(content: Any) -> dict[str, Tensor]:
    """The tensors of a file by name: the file itself, or what it holds under "model" or "state_dict".

    The "module." that DistributedDataParallel puts before every name is taken off.
    """
    if not isinstance(content, Mapping):
        return {}
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _any_starts(names: Any, *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in names)
