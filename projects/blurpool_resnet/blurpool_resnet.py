"""ResNet that blurs before it drops pixels (https://arxiv.org/abs/1904.11486): features follow an object that moves."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.backbones.resnet import Depth, FeatureName, ResNet
from frcnn.modeling.backbones.resnet_blocks import BasicBlock, BottleneckBlock, Stem
from frcnn.modeling.layers import ConvNorm, NormName
from frcnn.modeling.roles import BACKBONES


@BACKBONES.register
class BlurPoolResNet(ResNet):
    """ResNet-18 to -152 whose steps are a convolution or maximum of stride 1, a blur, and only then every second pixel.

    Parameters have the names and shapes of ResNet's, whose published weights therefore load. As in the paper, the first
    7x7 convolution keeps its step.

    Args:
        depth: number of layers.
        filter_size: taps of the blur along each side, a row of Pascal's triangle: 3 is 1 2 1.
        norm: FrozenBN (fixed statistics, for pretrained weights), BN, SyncBN, GN or LN.
        freeze_at: how many parts do not learn: 0 none, 1 the stem, 2 also res2, up to 5.
        out_features: the feature maps that are returned.
    """

    def __init__(
        self,
        *,
        depth: Depth,
        filter_size: Literal[2, 3, 4, 5] = 3,
        norm: NormName = "FrozenBN",
        freeze_at: int = 2,
        out_features: tuple[FeatureName, ...] = ("res2", "res3", "res4", "res5"),
    ) -> None:
        super().__init__(depth=depth, norm=norm, freeze_at=freeze_at, out_features=out_features)
        assert isinstance(self.stem, Stem)
        self.stem = BlurPoolStem(self.stem, filter_size)
        for block in self.modules():
            if isinstance(block, BasicBlock):
                block.conv1 = without_aliasing(block.conv1, filter_size)
            elif isinstance(block, BottleneckBlock):
                block.conv2 = without_aliasing(block.conv2, filter_size)
            if isinstance(block, BasicBlock | BottleneckBlock) and block.shortcut is not None:
                block.shortcut = without_aliasing(block.shortcut, filter_size)


class BlurPoolStem(nn.Module):
    """The stem of a ResNet with the maximum of every 3x3 pixels, then a blur of step 2.

    Args:
        stem: of one 7x7 convolution, which is taken over.
        filter_size: taps of the blur.
    """

    def __init__(self, stem: Stem, filter_size: int) -> None:
        super().__init__()
        self.conv1 = stem.conv1
        self.blur = BlurPool(filter_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.blur(F.max_pool2d(self.conv1(images), kernel_size=3, stride=1, padding=1))


class BlurredConvNorm(ConvNorm):
    """A convolution whose step is made by a blur: behind it, or before it if it is 1x1, as the two then commute.

    Args:
        conv: of stride 2; its parameters and its norm are taken over.
        filter_size: taps of the blur.
    """

    def __init__(self, conv: ConvNorm, filter_size: int) -> None:
        super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size[0], groups=conv.groups, relu=conv.relu)
        self.weight, self.bias, self.norm = conv.weight, conv.bias, conv.norm
        self.blur = BlurPool(filter_size)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):
            return super().forward(self.blur(x))
        return self.blur(super().forward(x))


def without_aliasing(conv: ConvNorm, filter_size: int) -> ConvNorm:
    """The convolution itself, or what replaces it if it drops pixels."""
    return conv if conv.stride == (1, 1) else BlurredConvNorm(conv, filter_size)


class BlurPool(nn.Module):
    """Blurs each channel by itself with binomial weights and keeps every second pixel; odd sides are rounded up.

    Args:
        filter_size: taps along each side.
    """

    kernel: Tensor

    def __init__(self, filter_size: int) -> None:
        super().__init__()
        if not 2 <= filter_size <= 5:
            raise ValueError(f"filter_size must be in 2..5, got {filter_size}")
        taps = torch.tensor([float(math.comb(filter_size - 1, i)) for i in range(filter_size)])
        self.register_buffer("kernel", taps.outer(taps) / taps.sum() ** 2, persistent=False)
        before = (filter_size - 1) // 2
        self.padding = (before, filter_size - 1 - before) * 2  # left, right, top, bottom

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, ceil(H / 2), ceil(W / 2)]."""
        channels = x.shape[1]
        weight = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)  # [C, 1, k, k]
        return F.conv2d(F.pad(x, self.padding, mode="replicate"), weight, stride=2, groups=channels)
