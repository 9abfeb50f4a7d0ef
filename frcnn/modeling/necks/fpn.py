"""Feature pyramid network (Lin et al., https://arxiv.org/abs/1612.03144)."""

from __future__ import annotations

from torch import Tensor, nn

from frcnn.modeling.layers import ConvNorm, NormName
from frcnn.modeling.necks.levels import fine_to_coarse, init_convolutions, level_names, upsample
from frcnn.modeling.necks.top_blocks import TopBlockName, make_top_block
from frcnn.modeling.roles import NECKS, Features, FeatureShapes, Neck
from frcnn.structures import FeatureShape


@NECKS.register
class FPN(Neck):
    """Brings every level to one width and lets the coarse levels speak to the fine ones.

    A level takes the number of its input: res2 becomes p2. Two inputs may have the same stride.

    Args:
        in_features: the maps to use, fine to coarse; null means all.
        out_channels: width of every output.
        norm: norm behind every convolution (FrozenBN, BN, SyncBN, GN or LN), or null for none.
        norm_eps: added to the norms' variance.
        top_block: coarser levels on top: pool (every second pixel of the last level, the paper's P6), p6p7 (two 3x3
            convolutions of stride 2 on the last input, RetinaNet's) or null.
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
        if out_channels < 1:
            raise ValueError(f"out_channels must be at least 1, got {out_channels}")
        self.in_features = tuple(feature_shapes) if in_features is None else tuple(in_features)
        shapes = fine_to_coarse(self.in_features, feature_shapes)
        self.levels = level_names(self.in_features)

        self.lateral, self.output = nn.ModuleDict(), nn.ModuleDict()
        for level, shape in zip(self.levels, shapes, strict=True):
            self.lateral[level] = ConvNorm(shape.channels, out_channels, 1, norm=norm, norm_eps=norm_eps)
            self.output[level] = ConvNorm(out_channels, out_channels, 3, norm=norm, norm_eps=norm_eps)
        self.top_block = make_top_block(top_block, self.levels[-1], shapes[-1].channels, out_channels)
        init_convolutions(self)

        strides = [shape.stride for shape in shapes]
        # Padding images to the coarsest input's stride keeps every level exactly twice as coarse as the one below.
        self.size_divisibility = max(strides)
        strides += [strides[-1] * 2 ** (i + 1) for i in range(len(self.top_block.levels))]
        names = (*self.levels, *self.top_block.levels)
        self.feature_shapes = {
            name: FeatureShape(out_channels, stride) for name, stride in zip(names, strides, strict=True)
        }

    def forward(self, features: Features) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        merged: Tensor | None = None
        for name, level in reversed(list(zip(self.in_features, self.levels, strict=True))):
            lateral = self.lateral[level](features[name])  # [B, out_channels, H, W]
            merged = lateral if merged is None else lateral + upsample(merged, lateral)
            outputs[level] = self.output[level](merged)
        outputs = {level: outputs[level] for level in self.levels}
        return outputs | self.top_block(features[self.in_features[-1]], outputs[self.levels[-1]])
