"""Deformable convolution, v1 (https://arxiv.org/abs/1703.06211) and v2 (https://arxiv.org/abs/1811.11168)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from frcnn.modeling.layers import ConvNorm, NormName
from frcnn.precision import autocast

StageName = Literal["res2", "res3", "res4", "res5"]


@dataclass(frozen=True)
class Deformable:
    """Which 3x3 convolutions of a ResNet look where their input tells them to.

    Args:
        stages: the stages whose 3x3 convolutions are deformable; the paper's c3-c5 are res3, res4 and res5.
        modulated: whether every tap also has a weight between 0 and 1 that depends on the input (v2).
        groups: into how many parts, each with taps of its own, the channels are cut.
    """

    stages: tuple[StageName, ...] = ("res3", "res4", "res5")
    modulated: bool = True
    groups: int = 1

    def __post_init__(self) -> None:
        known = get_args(StageName)
        if not self.stages or not set(self.stages) <= set(known):
            raise ValueError(f"deformable.stages must be names out of {', '.join(known)}, got {list(self.stages)}")
        if self.groups < 1:
            raise ValueError(f"deformable.groups must be at least 1, got {self.groups}")


class DeformConvNorm(ConvNorm):
    """A 3x3 convolution with taps that move, its norm and a ReLU.

    `offset` computes from the input where each tap looks: dy, dx for every tap and, if modulated, the logit of its
    weight. It starts with zeros: no movement, and a weight of one half.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        stride: step of the kernel.
        dilation: distance between the kernel's taps.
        groups: into how many parts, each convolved by itself, the channels are cut.
        norm: name of the norm layer.
        norm_eps: added to the norm's variance.
        deformable: modulation, and groups of the taps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int,
        groups: int,
        norm: NormName,
        norm_eps: float,
        deformable: Deformable,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            3,
            stride=stride,
            dilation=dilation,
            groups=groups,
            norm=norm,
            norm_eps=norm_eps,
            relu=True,
        )
        if in_channels % deformable.groups:
            raise ValueError(f"deformable.groups must divide {in_channels} channels, got {deformable.groups}")
        self.modulated = deformable.modulated
        self.num_taps = 9 * deformable.groups
        self.offset = nn.Conv2d(
            in_channels,
            (3 if self.modulated else 2) * self.num_taps,
            3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
        )
        self.reset_offset()

    def reset_offset(self) -> None:
        """Taps that do not move: to be called behind any initialisation of all convolutions."""
        nn.init.zeros_(self.offset.weight)
        if self.offset.bias is not None:
            nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        # In half precision far taps would jump by whole pixels, and torchvision has no kernel for bfloat16.
        precise = x.float()
        with autocast("off", x.device):
            movement = self.offset(precise)  # [B, 2 or 3 taps, H, W]
        mask = movement[:, 2 * self.num_taps :].sigmoid() if self.modulated else None
        moved = deform_conv2d(
            precise,
            movement[:, : 2 * self.num_taps],
            self.weight.float(),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            mask=mask,
        ).to(x.dtype)
        return F.relu_(moved if self.norm is None else self.norm(moved))
