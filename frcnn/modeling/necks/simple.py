"""Simple feature pyramid (ViTDet, Li et al., https://arxiv.org/abs/2203.16527)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from frcnn.modeling.features import shapes_of
from frcnn.modeling.layers import ConvNorm, NormName, make_norm
from frcnn.modeling.necks.top_blocks import make_top_block
from frcnn.modeling.roles import NECKS, Features, FeatureShapes, Neck
from frcnn.structures import FeatureShape


@NECKS.register
class SimpleFeaturePyramid(Neck):
    """Makes every level out of one map, which a plain ViT has: no level speaks to another.

    ViTDet, https://arxiv.org/abs/2203.16527.
    A level has the number of its stride: that of stride 4 is p2.

    Args:
        in_feature: the map to use; null means the only one there is.
        strides: of the levels, fine to coarse: a quarter, a half, once or twice the stride of the map.
        out_channels: width of every output.
        norm: norm behind every convolution (FrozenBN, BN, SyncBN, GN or LN, the paper's), or null for none.
        norm_eps: added to the norms' variance.
        top_block: pool for one coarser level on top (every second pixel of the last one), or null.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        in_feature: str | None = None,
        strides: tuple[int, ...] = (4, 8, 16, 32),
        out_channels: int = 256,
        norm: NormName | None = "LN",
        norm_eps: float = 1e-6,
        top_block: Literal["pool"] | None = "pool",
    ) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"out_channels must be at least 1, got {out_channels}")
        if in_feature is None and len(feature_shapes) != 1:
            raise ValueError(f"in_feature must name one of the maps {', '.join(feature_shapes)}")
        self.in_feature = in_feature or next(iter(feature_shapes))
        shape = shapes_of([self.in_feature], feature_shapes)[0]
        possible = [shape.stride // 4, shape.stride // 2, shape.stride, shape.stride * 2]
        if not strides or list(strides) != [stride for stride in possible if stride in strides]:
            raise ValueError(
                f"strides must be out of {possible} for a map of stride {shape.stride}, fine to coarse, got {list(strides)}"
            )

        self.rescale, self.lateral, self.output = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for stride in strides:
            level = f"p{stride.bit_length() - 1}"
            self.rescale[level], channels = _rescale(shape.channels, shape.stride / stride, norm, norm_eps)
            self.lateral[level] = ConvNorm(channels, out_channels, 1, norm=norm, norm_eps=norm_eps)
            self.output[level] = ConvNorm(out_channels, out_channels, 3, norm=norm, norm_eps=norm_eps)
        self.levels = tuple(self.rescale)
        self.top_block = make_top_block(top_block, self.levels[-1], shape.channels, out_channels)

        # Of images whose sides these strides divide, every level has exactly the size that its stride says.
        self.size_divisibility = max(strides[-1], shape.stride)
        coarser = [strides[-1] * 2 ** (i + 1) for i in range(len(self.top_block.levels))]
        self.feature_shapes = {
            name: FeatureShape(out_channels, stride)
            for name, stride in zip((*self.levels, *self.top_block.levels), (*strides, *coarser), strict=True)
        }

    def forward(self, features: Features) -> dict[str, Tensor]:
        x = features[self.in_feature]
        outputs = {level: self.output[level](self.lateral[level](self.rescale[level](x))) for level in self.levels}
        return outputs | self.top_block(x, outputs[self.levels[-1]])


def _rescale(channels: int, scale: float, norm: NormName | None, norm_eps: float) -> tuple[nn.Module, int]:
    """What makes the map `scale` times as large, and the width of its output."""
    if scale == 0.5:
        return nn.MaxPool2d(2, ceil_mode=True), channels
    if scale == 1:
        return nn.Identity(), channels
    if scale == 2:
        return nn.ConvTranspose2d(channels, channels // 2, 2, stride=2), channels // 2
    middle = nn.Identity() if norm is None else make_norm(norm, channels // 2, norm_eps)
    return nn.Sequential(
        nn.ConvTranspose2d(channels, channels // 2, 2, stride=2),
        middle,
        nn.GELU(),
        nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2),
    ), channels // 4
