"""ResNet-18 to -152 (He et al., https://arxiv.org/abs/1512.03385), with the variants detectors need."""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.features import check_out_features
from frcnn.modeling.layers import ConvNorm, NormName, freeze
from frcnn.modeling.roles import BACKBONES, Backbone
from frcnn.structures import FeatureShape

Depth = Literal[18, 34, 50, 101, 152]
FeatureName = Literal["stem", "res2", "res3", "res4", "res5"]

BLOCKS_PER_STAGE: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet-18 and -34).

    Args:
        in_channels: width of the input.
        width: width inside the block and of its output.
        stride: step of the first convolution.
        dilation: distance between the taps of both convolutions.
        norm: name of the norm layers.
        norm_eps: added to the norms' variance.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        dilation: int,
        norm: NormName,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.shortcut: ConvNorm | None = None
        if in_channels != width or stride != 1:
            self.shortcut = ConvNorm(in_channels, width, 1, stride=stride, norm=norm, norm_eps=norm_eps)
        self.conv1 = ConvNorm(
            in_channels, width, 3, stride=stride, dilation=dilation, norm=norm, norm_eps=norm_eps, relu=True
        )
        self.conv2 = ConvNorm(width, width, 3, dilation=dilation, norm=norm, norm_eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv2(self.conv1(x)) + shortcut)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (ResNet-50 and deeper).

    Args:
        in_channels: width of the input.
        width: width of the 3x3 convolution; the output has four times as many channels.
        stride: step of the block.
        dilation: distance between the taps of the 3x3 convolution.
        norm: name of the norm layers.
        norm_eps: added to the norms' variance.
        stride_in_1x1: whether the first 1x1 convolution makes the step (the paper, detectron2's weights) or the 3x3
            (torchvision's weights).
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        dilation: int,
        norm: NormName,
        norm_eps: float,
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut: ConvNorm | None = None
        if in_channels != out_channels or stride != 1:
            self.shortcut = ConvNorm(in_channels, out_channels, 1, stride=stride, norm=norm, norm_eps=norm_eps)
        self.conv1 = ConvNorm(in_channels, width, 1, stride=stride_1x1, norm=norm, norm_eps=norm_eps, relu=True)
        self.conv2 = ConvNorm(
            width, width, 3, stride=stride_3x3, dilation=dilation, norm=norm, norm_eps=norm_eps, relu=True
        )
        self.conv3 = ConvNorm(width, out_channels, 1, norm=norm, norm_eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv3(self.conv2(self.conv1(x))) + shortcut)


class Stem(nn.Module):
    """The 7x7 convolution and the max pooling that bring the image to a quarter of its size."""

    def __init__(self, out_channels: int, *, norm: NormName, norm_eps: float) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, out_channels, 7, stride=2, norm=norm, norm_eps=norm_eps, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        return F.max_pool2d(self.conv1(images), kernel_size=3, stride=2, padding=1)


class ResNetStage(nn.Sequential):
    """One stage of a ResNet: its blocks in a row. Also the box head of C4 detectors, which is a res5 of its own.

    Args:
        depth: which ResNet it is a stage of.
        stage: 2 to 5.
        stem_channels: width of that ResNet's stem.
        stride: step of the first block.
        dilation: distance between the taps of the 3x3 convolutions.
        norm: name of the norm layers.
        norm_eps: added to the norms' variance.
        stride_in_1x1: whether a bottleneck's first 1x1 convolution makes the step, rather than its 3x3.
    """

    def __init__(
        self,
        depth: Depth,
        stage: int,
        *,
        stem_channels: int = 64,
        stride: int = 2,
        dilation: int = 1,
        norm: NormName = "FrozenBN",
        norm_eps: float = 1e-5,
        stride_in_1x1: bool = False,
    ) -> None:
        if depth not in BLOCKS_PER_STAGE:
            raise ValueError(f"depth must be one of {', '.join(map(str, BLOCKS_PER_STAGE))}, got {depth}")
        if stage not in (2, 3, 4, 5):
            raise ValueError(f"stage must be 2, 3, 4 or 5, got {stage}")
        is_basic = depth < 50
        block = BasicBlock if is_basic else partial(BottleneckBlock, stride_in_1x1=stride_in_1x1)
        expansion = BasicBlock.expansion if is_basic else BottleneckBlock.expansion
        width = stem_channels * 2 ** (stage - 2)
        self.in_channels = stem_channels if stage == 2 else width // 2 * expansion
        self.out_channels = width * expansion
        super().__init__(
            *(
                block(
                    self.in_channels if i == 0 else self.out_channels,
                    width,
                    stride=stride if i == 0 else 1,
                    dilation=dilation,
                    norm=norm,
                    norm_eps=norm_eps,
                )
                for i in range(BLOCKS_PER_STAGE[depth][stage - 2])
            )
        )
        init_convolutions(self)


def init_convolutions(module: nn.Module) -> None:
    """Kaiming initialisation of every convolution (https://arxiv.org/abs/1502.01852)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


@BACKBONES.register
class ResNet(Backbone):
    """ResNet-18 to -152. Stages behind the last one asked for are not built.

    Args:
        depth: number of layers.
        norm: FrozenBN (fixed statistics, for pretrained weights), BN, SyncBN or GN.
        norm_eps: added to the norms' variance; 0 for torchvision's published v1 Faster R-CNN weights.
        freeze_at: how many parts do not learn: 0 none, 1 the stem, 2 also res2, up to 5; their batch norms become
            FrozenBN.
        stride_in_1x1: whether a bottleneck's first 1x1 convolution makes the step (detectron2's weights) or its 3x3
            (torchvision's weights); nothing in ResNet-18 and -34.
        stem_channels: width of the stem, from which the widths of all stages follow.
        out_features: the feature maps that are returned.
        res5_dilation: 2 keeps res5 at stride 16 and dilates its 3x3 convolutions instead (DC5).
    """

    def __init__(
        self,
        *,
        depth: Depth,
        norm: NormName = "FrozenBN",
        norm_eps: float = 1e-5,
        freeze_at: int = 2,
        stride_in_1x1: bool = False,
        stem_channels: int = 64,
        out_features: tuple[FeatureName, ...] = ("res2", "res3", "res4", "res5"),
        res5_dilation: Literal[1, 2] = 1,
    ) -> None:
        super().__init__()
        names = get_args(FeatureName)
        check_out_features(out_features, names)
        if not 0 <= freeze_at <= 5:
            raise ValueError(f"freeze_at must be in 0..5 (0 none, 1 stem, 2 stem and res2, ...), got {freeze_at}")
        if res5_dilation not in (1, 2):
            raise ValueError(f"res5_dilation must be 1 or 2, got {res5_dilation}")

        self.stem = Stem(stem_channels, norm=norm, norm_eps=norm_eps)
        init_convolutions(self.stem)
        shapes = {"stem": FeatureShape(stem_channels, 4)}
        stride = 4
        for number in range(2, max(names.index(name) for name in out_features) + 2):
            dilation = res5_dilation if number == 5 else 1
            step = 1 if number == 2 or dilation > 1 else 2
            stage = ResNetStage(
                depth,
                number,
                stem_channels=stem_channels,
                stride=step,
                dilation=dilation,
                norm=norm,
                norm_eps=norm_eps,
                stride_in_1x1=stride_in_1x1,
            )
            stride *= step
            self.add_module(f"res{number}", stage)
            shapes[f"res{number}"] = FeatureShape(stage.out_channels, stride)
        for name in list(shapes)[:freeze_at]:
            setattr(self, name, freeze(getattr(self, name)))

        self.part_names = tuple(shapes)
        self.feature_shapes = {name: shapes[name] for name in names if name in out_features}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = {}
        x = images
        for name in self.part_names:
            x = getattr(self, name)(x)
            if name in self.feature_shapes:
                features[name] = x
        return features
