"""ImageNet weights of Detectron and Caffe2 (`R-50.pkl`, `R-101.pkl`, `X-101-32x8d.pkl`) under our names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from frcnn.checkpoint.renaming import Converted, Rule, rename

_LAYER = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_CONV = {"w": "weight", "b": "bias"}
_NORM = {
    "s": "weight",
    "b": "bias",
    "gamma": "weight",
    "beta": "bias",
    "rm": "running_mean",
    "running_mean": "running_mean",
    "riv": "running_var",
    "running_var": "running_var",
}
_IN_BLOCK = r"res([2-5])_(\d+)_branch(1|2[abc])"
_NORM_PART = rf"(?:bn|gn)_({'|'.join(_NORM)})"

_RULES = (
    Rule("conv1_w", "backbone.stem.conv1.weight"),
    Rule(rf"(?:res_)?conv1_{_NORM_PART}", lambda m: f"backbone.stem.conv1.norm.{_NORM[m[1]]}"),
    Rule(rf"{_IN_BLOCK}_(w|b)", lambda m: f"{_layer(m)}.{_CONV[m[4]]}"),
    Rule(rf"{_IN_BLOCK}_{_NORM_PART}", lambda m: f"{_layer(m)}.norm.{_NORM[m[4]]}"),
)
_LEFT_OUT = (
    (r"(?:fc1000|pred|fc)_[wb]", "the classifier's last layer"),
    (r"conv1_b", "a norm follows the first convolution, which has no bias here"),
    (r".+_momentum", "the state of an optimizer"),
    (r"lr|weight_order|model_iter|iter", "not a weight"),
)


def from_caffe2(state_dict: Mapping[str, Tensor]) -> Converted:
    """Weights of a ResNet or ResNeXt by Caffe2's names, for the backbone.

    Their batch norms were folded into a scale and a shift: statistics of mean 0 and variance 1 are added, as detectron2
    does. These networks were trained on BGR images; MSRA's take their steps in the 1x1 convolutions.

    Args:
        state_dict: tensors by names such as `res2_0_branch2a_w`.

    Returns:
        our state dict, and the names for which we have no use.
    """
    converted = rename(state_dict, _RULES, _LEFT_OUT)
    for name, theirs in list(converted.origins.items()):
        if name.endswith(".norm.weight") and re.search(r"_bn_\w+$", theirs):
            scale = converted.state_dict[name]
            for part, value in (("running_mean", torch.zeros_like(scale)), ("running_var", torch.ones_like(scale))):
                converted.state_dict.setdefault(name.replace("weight", part), value)
    return converted


def _layer(match: re.Match[str]) -> str:
    return f"backbone.res{match[1]}.{match[2]}.{_LAYER[match[3]]}"
