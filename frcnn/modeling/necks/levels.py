"""What all pyramids share: names and order of levels, resizing between them, initial weights."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.features import shapes_of
from frcnn.modeling.roles import FeatureShapes
from frcnn.structures import FeatureShape


def fine_to_coarse(names: Sequence[str], feature_shapes: FeatureShapes) -> list[FeatureShape]:
    """The shapes of some maps.

    Raises:
        ValueError: a map does not exist, or a map is finer than the one before it.
    """
    shapes = shapes_of(names, feature_shapes)
    strides = [shape.stride for shape in shapes]
    if strides != sorted(strides):
        raise ValueError(f"a pyramid needs its in_features fine to coarse, but {list(names)} have strides {strides}")
    return shapes


def level_names(in_features: Sequence[str]) -> tuple[str, ...]:
    """A level takes the number of its input: res2 becomes p2.

    Raises:
        ValueError: a name has no number.
    """
    names = []
    for name in in_features:
        number = re.search(r"\d+$", name)
        if number is None:
            raise ValueError(f"levels are named by the number of their inputs (res2 becomes p2), but {name!r} has none")
        names.append(f"p{number.group()}")
    return tuple(names)


def upsample(coarse: Tensor, fine: Tensor) -> Tensor:
    """Nearest-neighbour to the size of the finer map, which need not be twice as large."""
    if coarse.shape[-2:] == fine.shape[-2:]:
        return coarse
    return F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")


def init_convolutions(module: nn.Module) -> None:
    """Kaiming's uniform initialisation for a linear layer (a = 1), biases 0, as pyramids have it since Detectron."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=1)
    zero_biases(module)


def zero_biases(module: nn.Module) -> None:
    """Sets the biases of all convolutions to 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
