"""Path aggregation network (Liu et al., https://arxiv.org/abs/1803.01534)."""

from __future__ import annotations

from torch import Tensor, nn

from frcnn.modeling.layers import ConvNorm, NormName
from frcnn.modeling.necks.fpn import FPN
from frcnn.modeling.necks.levels import fine_to_coarse, init_convolutions
from frcnn.modeling.necks.top_blocks import TopBlockName, make_top_block
from frcnn.modeling.roles import NECKS, Features, FeatureShapes, Neck
from frcnn.structures import FeatureShape


@NECKS.register
class PAFPN(Neck):
    """A feature pyramid, and behind it a path back from fine to coarse, so that coarse levels see fine edges too.

    Args:
        in_features: the maps to use, fine to coarse; null means all.
        out_channels: width of every output.
        norm: norm behind every convolution (FrozenBN, BN, SyncBN, GN or LN), or null for none.
        norm_eps: added to the norms' variance.
        top_block: coarser levels on top: pool (every second pixel of the last level), p6p7 (two 3x3 convolutions of
            stride 2 on the last input) or null.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        in_features: tuple[str, ...] | None = None,
        out_channels: int = 256,
        norm: NormName | None = None,
        norm_eps: float = 1e-5,
        top_block: TopBlockName | None = "pool",
    ) -> None:
        super().__init__()
        self.top_down = FPN(
            feature_shapes,
            in_features=in_features,
            out_channels=out_channels,
            norm=norm,
            norm_eps=norm_eps,
            top_block=None,
        )
        self.levels = self.top_down.levels
        shapes = fine_to_coarse(self.top_down.in_features, feature_shapes)
        self.downsample, self.output = nn.ModuleDict(), nn.ModuleDict()
        for level, finer, shape in zip(self.levels[1:], shapes, shapes[1:], strict=False):
            step = shape.stride // finer.stride
            self.downsample[level] = ConvNorm(out_channels, out_channels, 3, stride=step, norm=norm, norm_eps=norm_eps)
            self.output[level] = ConvNorm(out_channels, out_channels, 3, norm=norm, norm_eps=norm_eps)
        self.top_block = make_top_block(top_block, self.levels[-1], shapes[-1].channels, out_channels)
        init_convolutions(self)

        self.size_divisibility = self.top_down.size_divisibility
        coarsest = shapes[-1].stride
        self.feature_shapes = dict(self.top_down.feature_shapes) | {
            name: FeatureShape(out_channels, coarsest * 2 ** (i + 1)) for i, name in enumerate(self.top_block.levels)
        }

    def forward(self, features: Features) -> dict[str, Tensor]:
        pyramid = self.top_down(features)
        finest = self.levels[0]
        outputs, path = {finest: pyramid[finest]}, pyramid[finest]
        for level in self.levels[1:]:
            path = pyramid[level] + self.downsample[level](path)  # [B, out_channels, H, W]
            outputs[level] = self.output[level](path)
        return outputs | self.top_block(features[self.top_down.in_features[-1]], outputs[self.levels[-1]])
