"""The parts of ResNets: the two residual blocks, the shortcuts, and the two stems."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.backbones.deformable import Deformable, DeformConvNorm
from frcnn.modeling.layers import ConvNorm, NormName

Shortcut = Literal["conv", "pool"]
StemName = Literal["7x7", "3x3"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet-18 and -34).

    Args:
        in_channels: width of the input.
        width: width inside the block.
        out_channels: width of the output.
        stride: step of the first convolution.
        dilation: distance between the taps of both convolutions.
        shortcut: how a shortcut makes its step: by a 1x1 convolution, or by pooling before it.
        norm: name of the norm layers.
        norm_eps: added to the norms' variance.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int,
        shortcut: Shortcut,
        norm: NormName,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.shortcut = make_shortcut(shortcut, in_channels, out_channels, stride, norm, norm_eps)
        self.conv1 = ConvNorm(
            in_channels, width, 3, stride=stride, dilation=dilation, norm=norm, norm_eps=norm_eps, relu=True
        )
        self.conv2 = ConvNorm(width, out_channels, 3, dilation=dilation, norm=norm, norm_eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv2(self.conv1(x)) + shortcut)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (ResNet-50 and deeper).

    Args:
        in_channels: width of the input.
        width: width of the 3x3 convolution.
        out_channels: width of the output.
        stride: step of the block.
        dilation: distance between the taps of the 3x3 convolution.
        shortcut: how a shortcut makes its step: by a 1x1 convolution, or by pooling before it.
        norm: name of the norm layers.
        norm_eps: added to the norms' variance.
        stride_in_1x1: whether the first 1x1 convolution makes the step (the paper, detectron2's weights) or the 3x3
            (torchvision's weights).
        groups: into how many parts the 3x3 convolution cuts its channels (ResNeXt).
        deformable: makes the 3x3 convolution a deformable one.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int,
        shortcut: Shortcut,
        norm: NormName,
        norm_eps: float,
        stride_in_1x1: bool = False,
        groups: int = 1,
        deformable: Deformable | None = None,
    ) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = make_shortcut(shortcut, in_channels, out_channels, stride, norm, norm_eps)
        self.conv1 = ConvNorm(in_channels, width, 1, stride=stride_1x1, norm=norm, norm_eps=norm_eps, relu=True)
        if deformable is None:
            self.conv2 = ConvNorm(
                width,
                width,
                3,
                stride=stride_3x3,
                dilation=dilation,
                groups=groups,
                norm=norm,
                norm_eps=norm_eps,
                relu=True,
            )
        else:
            self.conv2 = DeformConvNorm(
                width,
                width,
                stride=stride_3x3,
                dilation=dilation,
                groups=groups,
                norm=norm,
                norm_eps=norm_eps,
                deformable=deformable,
            )
        self.conv3 = ConvNorm(width, out_channels, 1, norm=norm, norm_eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv3(self.conv2(self.conv1(x))) + shortcut)


class PooledConvNorm(ConvNorm):
    """Average pooling that makes the step, then a 1x1 convolution that sees every pixel (ResNet-D).

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        pool: side and step of the pooling; at the border it takes the mean of the pixels that are there.
        norm: name of the norm layer.
        norm_eps: added to the norm's variance.
    """

    def __init__(self, in_channels: int, out_channels: int, pool: int, *, norm: NormName, norm_eps: float) -> None:
        super().__init__(in_channels, out_channels, 1, norm=norm, norm_eps=norm_eps)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.avg_pool2d(x, self.pool, self.pool, ceil_mode=True, count_include_pad=False))


def make_shortcut(
    kind: Shortcut, in_channels: int, out_channels: int, stride: int, norm: NormName, norm_eps: float
) -> ConvNorm | None:
    """The convolution that brings a block's input to the size of its output, or None if it has that size.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in ("conv", "pool"):
        raise ValueError(f"shortcut must be conv or pool, got {kind!r}")
    if in_channels == out_channels and stride == 1:
        return None
    if kind == "pool" and stride > 1:
        return PooledConvNorm(in_channels, out_channels, stride, norm=norm, norm_eps=norm_eps)
    return ConvNorm(in_channels, out_channels, 1, stride=stride, norm=norm, norm_eps=norm_eps)


class Stem(nn.Module):
    """The 7x7 convolution and the max pooling that bring the image to a quarter of its size."""

    def __init__(self, out_channels: int, *, norm: NormName, norm_eps: float) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, out_channels, 7, stride=2, norm=norm, norm_eps=norm_eps, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        return F.max_pool2d(self.conv1(images), kernel_size=3, stride=2, padding=1)


class DeepStem(nn.Module):
    """Three 3x3 convolutions in place of the 7x7 (ResNet-C and -D, https://arxiv.org/abs/1812.01187)."""

    def __init__(self, out_channels: int, *, norm: NormName, norm_eps: float) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = ConvNorm(3, half, 3, stride=2, norm=norm, norm_eps=norm_eps, relu=True)
        self.conv2 = ConvNorm(half, half, 3, norm=norm, norm_eps=norm_eps, relu=True)
        self.conv3 = ConvNorm(half, out_channels, 3, norm=norm, norm_eps=norm_eps, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv3(self.conv2(self.conv1(images)))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


def make_stem(name: StemName, out_channels: int, *, norm: NormName, norm_eps: float) -> nn.Module:
    """A stem by its name.

    Raises:
        ValueError: the name is unknown.
    """
    stems = {"7x7": Stem, "3x3": DeepStem}
    if name not in stems:
        raise ValueError(f"stem must be one of {', '.join(stems)}, got {name!r}")
    return stems[name](out_channels, norm=norm, norm_eps=norm_eps)
