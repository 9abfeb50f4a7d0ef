"""ResNeXt-50 to -152 (Xie et al., https://arxiv.org/abs/1611.05431)."""

from __future__ import annotations

from functools import partial
from typing import Literal

from frcnn.modeling.backbones.deformable import Deformable
from frcnn.modeling.backbones.resnet import FeatureName, ResidualNetwork, ResNetStage
from frcnn.modeling.backbones.resnet_blocks import Shortcut, StemName, make_stem
from frcnn.modeling.layers import NormName
from frcnn.modeling.roles import BACKBONES


@BACKBONES.register
class ResNeXt(ResidualNetwork):
    """A ResNet whose 3x3 convolutions are cut into groups; its usual name is depth, groups x width: 101-32x8d.

    Aggregated Residual Transformations for Deep Neural Networks, https://arxiv.org/abs/1611.05431.

    Args:
        depth: number of layers.
        groups: into how many parts the 3x3 convolutions cut their channels.
        width_per_group: channels of each part in res2; every further stage has twice as many.
        norm: FrozenBN (fixed statistics, for pretrained weights), BN, SyncBN, GN or LN.
        norm_eps: added to the norms' variance.
        freeze_at: how many parts do not learn: 0 none, 1 the stem, 2 also res2, up to 5; their batch norms become
            FrozenBN.
        stride_in_1x1: whether the first 1x1 convolution of a block makes its step, rather than the 3x3; the weights of
            torchvision and detectron2 have it in the 3x3.
        stem: 7x7 (one convolution, the paper) or 3x3 (three of them, ResNet-C and -D).
        stem_channels: width of the stem, from which the widths of all stages follow.
        shortcut: how shortcuts make their steps: conv (a 1x1 convolution of stride 2) or pool (mean of 2x2 before it).
        deformable: which stages have deformable convolutions; null for none.
        out_features: the feature maps that are returned.
        res5_dilation: 2 keeps res5 at stride 16 and dilates its 3x3 convolutions instead (DC5).
    """

    def __init__(
        self,
        *,
        depth: Literal[50, 101, 152],
        groups: int = 32,
        width_per_group: int = 8,
        norm: NormName = "FrozenBN",
        norm_eps: float = 1e-5,
        freeze_at: int = 2,
        stride_in_1x1: bool = False,
        stem: StemName = "7x7",
        stem_channels: int = 64,
        shortcut: Shortcut = "conv",
        deformable: Deformable | None = None,
        out_features: tuple[FeatureName, ...] = ("res2", "res3", "res4", "res5"),
        res5_dilation: Literal[1, 2] = 1,
    ) -> None:
        if groups < 1 or width_per_group < 1:
            raise ValueError(f"groups and width_per_group must be at least 1, got {groups} and {width_per_group}")
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
                groups=groups,
                width_per_group=width_per_group,
                shortcut=shortcut,
                deformable=deformable,
            ),
            freeze_at=freeze_at,
            out_features=out_features,
            res5_dilation=res5_dilation,
        )
