"""Levels on top of a pyramid, coarser than what the backbone gives."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.layers import ConvNorm

TopBlockName = Literal["pool", "p6p7"]


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


def make_top_block(name: str | None, last_level: str, in_channels: int, out_channels: int) -> TopBlock:
    """A top block by its name.

    Args:
        name: pool, p6p7 or None for none.
        last_level: name of the coarsest level below it, such as p5.
        in_channels: width of the last input.
        out_channels: width of the levels.
    """
    last_number = int(last_level.removeprefix("p"))
    if name is None:
        return TopBlock()
    if name == "pool":
        return PoolTopBlock(last_number + 1)
    if name == "p6p7":
        return ConvTopBlock(last_number + 1, in_channels, out_channels)
    raise ValueError(f"top_block must be pool, p6p7 or null, got {name!r}")
