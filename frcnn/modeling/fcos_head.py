"""The head of FCOS (https://arxiv.org/abs/1904.01355), and what its three outputs mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.layers import ConvNorm, NormName
from frcnn.modeling.matchers.fcos import distances
from frcnn.ops.boxes import BoxCoder


class FCOSOutput(NamedTuple):
    """L x objectness [B, 1, H, W], L x sides [B, 4, H, W] in strides, and L x quality [B, 1, H, W], logits as objectness."""

    objectness: list[Tensor]
    sides: list[Tensor]
    quality: list[Tensor]


class FCOSHead(nn.Module):
    """Two towers of convolutions, shared by all levels: one for objectness, one for sides and quality.

    Args:
        channels: of every feature map.
        num_levels: how many feature maps; each has a scale of its own for the sides.
        num_convs: of each tower.
        norm: behind each convolution, or None.
        prior_probability: of an object at every location before training.
    """

    def __init__(
        self, channels: int, num_levels: int, *, num_convs: int, norm: NormName | None, prior_probability: float
    ) -> None:
        super().__init__()
        if num_convs < 0:
            raise ValueError(f"num_convs must be at least 0, got {num_convs}")
        if not 0 < prior_probability < 1:
            raise ValueError(f"prior_probability must be between 0 and 1, got {prior_probability}")
        self.score_tower, self.box_tower = (
            nn.Sequential(*(ConvNorm(channels, channels, 3, norm=norm, relu=True) for _ in range(num_convs)))
            for _ in range(2)
        )
        self.objectness, self.sides, self.quality = (nn.Conv2d(channels, n, 3, padding=1) for n in (1, 4, 1))
        self.scales = nn.Parameter(torch.ones(num_levels))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        assert self.objectness.bias is not None
        nn.init.constant_(self.objectness.bias, math.log(prior_probability / (1 - prior_probability)))

    def forward(self, features: Sequence[Tensor]) -> FCOSOutput:
        """L x [B, C, H, W] -> logits, and sides as positive float32 numbers of strides."""
        output = FCOSOutput([], [], [])
        for x, scale in zip(features, self.scales, strict=True):
            output.objectness.append(self.objectness(self.score_tower(x)))
            in_tower = self.box_tower(x)
            # exp(0) is one stride to each side; the limit is a thousand strides, so that nothing becomes infinite.
            output.sides.append((self.sides(in_tower).float() * scale).clamp(max=math.log(1000.0)).exp())
            output.quality.append(self.quality(in_tower).float())
        return output


@dataclass(frozen=True)
class SideCoder(BoxCoder):
    """Codes a box as the distances from a cell's centre to its left, top, right and bottom, in cells.

    Args:
        weights: factors of the four distances.
        clamp: not used: the head limits the distances.
    """

    def encode(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        """Cells [n, 4] and boxes [n, 4] -> [n, 4]."""
        centers = (boxes[:, :2] + boxes[:, 2:]).float() / 2
        return distances(centers, gt_boxes.float()) / self._cell(boxes)

    def decode(self, boxes: Tensor, deltas: Tensor) -> Tensor:
        """Cells [..., 4] and distances [..., 4] -> boxes [..., 4]."""
        sides = deltas.float() * self._cell(boxes)
        centers = (boxes[..., :2] + boxes[..., 2:]).float() / 2
        return torch.cat((centers - sides[..., :2], centers + sides[..., 2:]), dim=-1)

    def _cell(self, boxes: Tensor) -> Tensor:
        """[..., 4]: what one unit of each distance is in pixels."""
        size = (boxes[..., 2:] - boxes[..., :2]).float()  # [..., 2]
        return torch.cat((size, size), dim=-1) / size.new_tensor(self.weights)


def fuse(objectness: Tensor, quality: Tensor) -> Tensor:
    """The logit of the geometric mean of two probabilities that are given as logits, of any shape."""
    log_mean = (F.logsigmoid(objectness.float()) + F.logsigmoid(quality.float())) / 2
    log_mean = log_mean.clamp(max=-1e-6)  # a probability of 1 has no logit
    return log_mean - torch.log(-torch.expm1(log_mean))
