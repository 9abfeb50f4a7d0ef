"""ResNet-18 to -152 (He et al., https://arxiv.org/abs/1512.03385): the stages, and the network of a stem and stages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

from torch import Tensor, nn

from frcnn.modeling.backbones.deformable import Deformable, DeformConvNorm
from frcnn.modeling.backbones.resnet_blocks import BasicBlock, BottleneckBlock, Shortcut, StemName, make_stem
from frcnn.modeling.features import check_out_features
from frcnn.modeling.layers import NormName, freeze
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
        groups: into how many parts the 3x3 convolutions of bottlenecks cut their channels (ResNeXt).
        width_per_group: of these convolutions, in the first stage of a ResNet with 64 channels in the stem.
        shortcut: how the first block's shortcut makes its step: by a 1x1 convolution, or by pooling before it.
        deformable: makes the 3x3 convolutions of bottlenecks deformable, if it names this stage.
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
        groups: int = 1,
        width_per_group: int = 64,
        shortcut: Shortcut = "conv",
        deformable: Deformable | None = None,
    ) -> None:
        if depth not in BLOCKS_PER_STAGE:
            raise ValueError(f"depth must be one of {', '.join(map(str, BLOCKS_PER_STAGE))}, got {depth}")
        if stage not in (2, 3, 4, 5):
            raise ValueError(f"stage must be 2, 3, 4 or 5, got {stage}")
        is_basic = depth < 50
        if is_basic and (groups, width_per_group, deformable) != (1, 64, None):
            raise ValueError(f"groups, width_per_group and deformable need bottlenecks: depth 50 or more, got {depth}")
        if deformable is not None and f"res{stage}" not in deformable.stages:
            deformable = None
        block: Callable[..., nn.Module] = BasicBlock
        if not is_basic:
            block = partial(BottleneckBlock, stride_in_1x1=stride_in_1x1, groups=groups, deformable=deformable)
        expansion = BasicBlock.expansion if is_basic else BottleneckBlock.expansion
        base = stem_channels * 2 ** (stage - 2)
        width = base * width_per_group // 64 * groups
        if width < 1:
            raise ValueError(
                f"width_per_group {width_per_group} leaves no channels in res{stage} when the stem has {stem_channels}"
            )
        self.in_channels = stem_channels if stage == 2 else base // 2 * expansion
        self.out_channels = base * expansion
        super().__init__(
            *(
                block(
                    self.in_channels if i == 0 else self.out_channels,
                    width,
                    self.out_channels,
                    stride=stride if i == 0 else 1,
                    dilation=dilation,
                    shortcut=shortcut,
                    norm=norm,
                    norm_eps=norm_eps,
                )
                for i in range(BLOCKS_PER_STAGE[depth][stage - 2])
            )
        )
        init_convolutions(self)


def init_convolutions(module: nn.Module) -> None:
    """Kaiming initialisation of every convolution (https://arxiv.org/abs/1502.01852); moving taps start at rest."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    for layer in module.modules():
        if isinstance(layer, DeformConvNorm):
            layer.reset_offset()


class ResidualNetwork(Backbone):
    """A stem and the stages behind it, up to the last one asked for: what ResNet and ResNeXt share.

    Args:
        stem: brings the image to a quarter of its size.
        stem_channels: width of its output.
        make_stage: (number, stride=, dilation=) -> a stage.
        freeze_at: how many parts do not learn: 0 none, 1 the stem, 2 also res2, up to 5.
        out_features: the feature maps that are returned.
        res5_dilation: 2 keeps res5 at stride 16 and dilates its 3x3 convolutions instead.
    """

    def __init__(
        self,
        stem: nn.Module,
        stem_channels: int,
        make_stage: Callable[..., ResNetStage],
        *,
        freeze_at: int,
        out_features: tuple[FeatureName, ...],
        res5_dilation: Literal[1, 2],
    ) -> None:
        super().__init__()
        names = get_args(FeatureName)
        check_out_features(out_features, names)
        if not 0 <= freeze_at <= 5:
            raise ValueError(f"freeze_at must be in 0..5 (0 none, 1 stem, 2 stem and res2, ...), got {freeze_at}")
        if res5_dilation not in (1, 2):
            raise ValueError(f"res5_dilation must be 1 or 2, got {res5_dilation}")

        self.stem = stem
        init_convolutions(self.stem)
        shapes = {"stem": FeatureShape(stem_channels, 4)}
        stride = 4
        for number in range(2, max(names.index(name) for name in out_features) + 2):
            dilation = res5_dilation if number == 5 else 1
            step = 1 if number == 2 or dilation > 1 else 2
            stage = make_stage(number, stride=step, dilation=dilation)
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


@BACKBONES.register
class ResNet(ResidualNetwork):
    """ResNet-18 to -152, wide ones and ResNet-D. Stages behind the last one asked for are not built.

    ResNet: https://arxiv.org/abs/1512.03385. Wide: https://arxiv.org/abs/1605.07146. ResNet-D, which is `stem: 3x3` and
    `shortcut: pool`: https://arxiv.org/abs/1812.01187. Deformable: https://arxiv.org/abs/1703.06211.

    Args:
        depth: number of layers.
        norm: FrozenBN (fixed statistics, for pretrained weights), BN, SyncBN, GN or LN.
        norm_eps: added to the norms' variance; 0 for torchvision's published v1 Faster R-CNN weights.
        freeze_at: how many parts do not learn: 0 none, 1 the stem, 2 also res2, up to 5; their batch norms become
            FrozenBN.
        stride_in_1x1: whether a bottleneck's first 1x1 convolution makes the step (detectron2's weights) or its 3x3
            (torchvision's weights); nothing in ResNet-18 and -34.
        stem: 7x7 (one convolution, the paper) or 3x3 (three of them, ResNet-C and -D).
        stem_channels: width of the stem, from which the widths of all stages follow.
        width_per_group: 64, or 128 for bottlenecks that are twice as wide inside (torchvision's wide_resnet50_2).
        shortcut: how shortcuts make their steps: conv (a 1x1 convolution of stride 2) or pool (mean of 2x2 before it).
        deformable: which stages have deformable convolutions; null for none.
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
        stem: StemName = "7x7",
        stem_channels: int = 64,
        width_per_group: int = 64,
        shortcut: Shortcut = "conv",
        deformable: Deformable | None = None,
        out_features: tuple[FeatureName, ...] = ("res2", "res3", "res4", "res5"),
        res5_dilation: Literal[1, 2] = 1,
    ) -> None:
        super().__init__(
            make_stem(stem, stem_channels, norm=norm, norm_eps=norm_eps),
            stem_channels,
            partial(
                ResNetStage,
                depth,
                stem_channels=stem_channels,
                norm=norm,
                norm_eps=norm_eps,
                stride_in_1x1=stride_in_1x1,
                width_per_group=width_per_group,
                shortcut=shortcut,
                deformable=deformable,
            ),
            freeze_at=freeze_at,
            out_features=out_features,
            res5_dilation=res5_dilation,
        )
