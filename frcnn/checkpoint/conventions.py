"""What published weights expect of a model beside their shapes: channel order, pixel scale, where strides are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from frcnn.checkpoint.kinds import Kind
from frcnn.checkpoint.sources import Weights

_RGB = {
    "model.channel_order": "RGB",
    "model.pixel_mean": [123.675, 116.28, 103.53],
    "model.pixel_std": [58.395, 57.12, 57.375],
}
_BGR = {"model.channel_order": "BGR", "model.pixel_mean": [103.53, 116.28, 123.675]}
_ZOO_AUTHORS = ("Detectron2 Model Zoo", "Caffe2")
# Trained from weights whose eps was dropped; torchvision sets it to 0 for these files alone.
_WITHOUT_EPS = re.compile(r"(faster|mask|keypoint)rcnn_resnet50_fpn_coco-\w+\.pth")


@dataclass(frozen=True)
class Convention:
    """What weights were trained with.

    Args:
        trained_by: whose weights they are, in words.
        options: key of a config -> the value it must have.
    """

    trained_by: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """An option of a config that is not as weights were trained.

    Args:
        key: dotted path.
        expected: the weights' value.
        found: the config's.
    """

    key: str
    expected: Any
    found: Any

    @property
    def override(self) -> str:
        """As the command line takes it: `model.pixel_std=[1.0, 1.0, 1.0]`."""
        return f"{self.key}={_as_yaml(self.expected)}"


def convention_of(weights: Weights) -> Convention | None:
    """What weights were trained with, where the file leaves no doubt; None where it does not say.

    detectron2's zoo and Detectron's ImageNet weights: BGR, MSRA's ResNets with the scale of the pixels in their first
    convolution and their steps in the 1x1 convolutions, FAIR's ResNeXt with neither. What detectron2 made of torchvision's
    weights, and torchvision's own: RGB.

    Args:
        weights: from `resolve_weights`.
    """
    if weights.kind is Kind.CAFFE2 or (weights.kind is Kind.DETECTRON2 and weights.author in _ZOO_AUTHORS):
        if (groups := _groups(weights.state_dict)) is None:
            return None
        is_resnet = groups == 1
        std = [1.0, 1.0, 1.0] if is_resnet else [57.375, 57.12, 58.395]
        options = {**_BGR, "model.pixel_std": std, **_strides(in_1x1=is_resnet)}
        return Convention("Detectron" if weights.kind is Kind.CAFFE2 else "detectron2's model zoo", options)
    if weights.kind is Kind.DETECTRON2 and weights.author == "torchvision":
        return Convention("torchvision, by detectron2's names", {**_RGB, **_strides(in_1x1=False)})
    if weights.kind in (Kind.TORCHVISION_DETECTOR, Kind.TORCHVISION_CLASSIFIER):
        options = {**_RGB, **_strides(in_1x1=False)}
        if _WITHOUT_EPS.fullmatch(weights.path.name):
            options["model.backbone.norm_eps"] = 0.0
        return Convention("torchvision", options)
    return None


def differences(convention: Convention, config: Mapping[str, Any]) -> list[Difference]:
    """The options of a config that are not as weights were trained.

    Args:
        convention: of the weights.
        config: a complete config as plain data, every default filled in; what a component of it has no option for is
            not compared.
    """
    found = {key: _value_at(config, key) for key in convention.options}
    return [
        Difference(key, expected, found[key])
        for key, expected in convention.options.items()
        if found[key] is not None and found[key] != expected
    ]


def advice(weights: Weights, config: Mapping[str, Any] | None = None) -> list[str]:
    """What a config should say for weights that it does not fit, in lines.

    Args:
        weights: from `resolve_weights`.
        config: complete, as plain data; None says all that the weights expect.
    """
    convention = convention_of(weights)
    if convention is None:
        return []
    if config is None:
        expected = [
            Difference(key, value, None).override
            for key, value in convention.options.items()
            if not key.startswith("model.roi_heads.") or _has_res5_heads(weights.state_dict)
        ]
        return [f"these weights are {convention.trained_by}'s; the config of a model for them has"] + [
            f"  {override}" for override in expected
        ]
    different = differences(convention, config)
    if not different:
        return []
    return [
        f"warning: these weights are {convention.trained_by}'s, and the config is not made for them; they expect"
    ] + [f"  {difference.override}    the config has {difference.found}" for difference in different]


def _strides(*, in_1x1: bool) -> dict[str, bool]:
    return {"model.backbone.stride_in_1x1": in_1x1, "model.roi_heads.stride_in_1x1": in_1x1}


def _has_res5_heads(state_dict: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("roi_heads.") and ".res5." in name for name in state_dict)


def _groups(state_dict: Mapping[str, Tensor]) -> int | None:
    """Into how many parts the 3x3 convolutions of a ResNet cut their channels; None if it is no ResNet."""
    reduce, conv = (state_dict.get(f"backbone.res2.0.conv{number}.weight") for number in (1, 2))
    return None if reduce is None or conv is None else len(reduce) // conv.shape[1]


def _value_at(config: Any, key: str) -> Any:
    for word in key.split("."):
        if not isinstance(config, Mapping) or word not in config:
            return None
        config = config[word]
    return list(config) if isinstance(config, tuple) else config


def _as_yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(f'{item:g}' for item in value)}]" if isinstance(value, list) else str(value)
