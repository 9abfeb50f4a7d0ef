"""Feature pyramid network (Lin et al., https://arxiv.org/abs/1612.03144)."""

from __future__ import annotations

import re
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.features import shapes_of
from frcnn.modeling.layers import ConvNorm, NormName
from frcnn.modeling.roles import NECKS, Features, FeatureShapes, Neck
from frcnn.structures import FeatureShape


@NECKS.register
class FPN(Neck):
    """Brings every level to one width and lets the coarse levels speak to the fine ones.

    A level takes the number of its input: res2 becomes p2. Two inputs may have the same stride.

    Args:
        in_features: the maps to use, fine to coarse; null means all.
        out_channels: width of every output.
        norm: norm behind every convolution (FrozenBN, BN, SyncBN or GN), or null for none.
        norm_eps: added to the norms' variance.
        top_block: coarser levels on top: pool (every second pixel of the last level, the paper's P6), p6p7 (two 3x3
            convolutions of stride 2 on the last input, RetinaNet's) or null.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        in_features: tuple[str, ...] | None = None,
        out_channels: int = 256,
        norm: NormName | None = None,
        norm_eps: float = 1e-5,
        top_block: Literal["pool", "p6p7"] | None = "pool",
    ) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"out_channels must be at least 1, got {out_channels}")
        self.in_features = tuple(feature_shapes) if in_features is None else tuple(in_features)
        shapes = _fine_to_coarse(self.in_features, feature_shapes)
        numbers = [_level_number(name) for name in self.in_features]
        self.levels = tuple(f"p{number}" for number in numbers)

        self.lateral, self.output = nn.ModuleDict(), nn.ModuleDict()
        for level, shape in zip(self.levels, shapes, strict=True):
            self.lateral[level] = ConvNorm(shape.channels, out_channels, 1, norm=norm, norm_eps=norm_eps)
            self.output[level] = ConvNorm(out_channels, out_channels, 3, norm=norm, norm_eps=norm_eps)
        self.top_block = _make_top_block(top_block, numbers[-1], shapes[-1].channels, out_channels)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

        strides = [shape.stride for shape in shapes]
        # Padding images to the coarsest input's stride keeps every level exactly twice as coarse as the one below.
        self.size_divisibility = max(strides)
        strides += [strides[-1] * 2 ** (i + 1) for i in range(len(self.top_block.levels))]
        names = (*self.levels, *self.top_block.levels)
        self.feature_shapes = {
            name: FeatureShape(out_channels, stride) for name, stride in zip(names, strides, strict=True)
        }

    def forward(self, features: Features) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        merged: Tensor | None = None
        for name, level in reversed(list(zip(self.in_features, self.levels, strict=True))):
            lateral = self.lateral[level](features[name])  # [B, out_channels, H, W]
            merged = lateral if merged is None else lateral + _upsample(merged, lateral)
            outputs[level] = self.output[level](merged)
        outputs = {level: outputs[level] for level in self.levels}
        return outputs | self.top_block(features[self.in_features[-1]], outputs[self.levels[-1]])


class TopBlock(nn.Module):
    """Coarser levels made from the last input and the last output: none in this base class."""

    levels: tuple[str, ...] = ()

    def forward(self, last_input: Tensor, last_output: Tensor) -> dict[str, Tensor]:
        return {}


class PoolTopBlock(TopBlock):
    """One more level: every second pixel of the last output."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.levels = (f"p{number}",)

    def forward(self, last_input: Tensor, last_output: Tensor) -> dict[str, Tensor]:
        return {self.levels[0]: F.max_pool2d(last_output, kernel_size=1, stride=2)}


class ConvTopBlock(TopBlock):
    """Two more levels by 3x3 convolutions of stride 2 (RetinaNet, https://arxiv.org/abs/1708.02002)."""

    def __init__(self, number: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.levels = (f"p{number}", f"p{number + 1}")
        self.first = ConvNorm(in_channels, out_channels, 3, stride=2)
        self.second = ConvNorm(out_channels, out_channels, 3, stride=2)

    def forward(self, last_input: Tensor, last_output: Tensor) -> dict[str, Tensor]:
        first = self.first(last_input)
        return {self.levels[0]: first, self.levels[1]: self.second(F.relu(first))}


def _make_top_block(name: str | None, last_number: int, in_channels: int, out_channels: int) -> TopBlock:
    if name is None:
        return TopBlock()
    if name == "pool":
        return PoolTopBlock(last_number + 1)
    if name == "p6p7":
        return ConvTopBlock(last_number + 1, in_channels, out_channels)
    raise ValueError(f"top_block must be pool, p6p7 or null, got {name!r}")


def _fine_to_coarse(names: tuple[str, ...], feature_shapes: FeatureShapes) -> list[FeatureShape]:
    shapes = shapes_of(names, feature_shapes)
    strides = [shape.stride for shape in shapes]
    if strides != sorted(strides):
        raise ValueError(f"FPN needs its in_features fine to coarse, but {list(names)} have strides {strides}")
    return shapes


def _level_number(name: str) -> int:
    number = re.search(r"\d+$", name)
    if number is None:
        raise ValueError(f"FPN names its levels by the number of their inputs (res2 becomes p2), but {name!r} has none")
    return int(number.group())


def _upsample(coarse: Tensor, fine: Tensor) -> Tensor:
    """Nearest-neighbour to the size of the finer map, which need not be twice as large."""
    if coarse.shape[-2:] == fine.shape[-2:]:
        return coarse
    return F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
