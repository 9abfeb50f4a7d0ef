"""Balanced feature pyramid of Libra R-CNN (Pang et al., https://arxiv.org/abs/1904.02701)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.features import shapes_of
from frcnn.modeling.layers import ConvNorm
from frcnn.modeling.necks.levels import upsample, zero_biases
from frcnn.modeling.non_local import NonLocalBlock
from frcnn.modeling.roles import NECKS, Features, FeatureShapes, Neck


@NECKS.register
class BFP(Neck):
    """Adds to every level what all levels say together; stands behind another neck and keeps its levels.

    The levels are brought to the size of one of them, averaged, refined, and brought back.

    Args:
        in_features: the levels to balance, of one width; null means all. Others pass unchanged.
        refine_level: the level at whose size they meet; null takes the middle one (the finer of two).
        refine: non_local (every position looks at all others), conv (one 3x3 convolution) or null for neither.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        in_features: tuple[str, ...] | None = None,
        refine_level: str | None = None,
        refine: Literal["non_local", "conv"] | None = "non_local",
    ) -> None:
        super().__init__()
        self.in_features = tuple(feature_shapes) if in_features is None else tuple(in_features)
        shapes = shapes_of(self.in_features, feature_shapes)
        widths = [shape.channels for shape in shapes]
        if len(set(widths)) != 1:
            raise ValueError(
                f"BFP averages its levels, so they need one width, but {list(self.in_features)} have {widths} channels: "
                "put an FPN before it"
            )
        self.refine_level = refine_level or self.in_features[(len(self.in_features) - 1) // 2]
        if self.refine_level not in self.in_features:
            raise ValueError(f"refine_level is {refine_level}, which is not among {', '.join(self.in_features)}")
        self.refine = _make_refinement(refine, widths[0])
        self.feature_shapes = feature_shapes

    def forward(self, features: Features) -> dict[str, Tensor]:
        like = features[self.refine_level]
        together = torch.stack([_resize(features[name], like) for name in self.in_features]).mean(dim=0)
        together = self.refine(together)  # [B, C, H, W]
        balanced = {name: features[name] + _resize(together, features[name]) for name in self.in_features}
        return {name: balanced.get(name, feature) for name, feature in features.items()}


def _make_refinement(name: str | None, channels: int) -> nn.Module:
    if name is None:
        return nn.Identity()
    if name == "non_local":
        # The embedded Gaussian of the block's paper has no 1 / sqrt(C).
        return NonLocalBlock(channels, inner_channels=channels, scale=1.0)
    if name == "conv":
        conv = ConvNorm(channels, channels, 3)
        nn.init.xavier_uniform_(conv.weight)
        zero_biases(conv)
        return conv
    raise ValueError(f"refine must be non_local, conv or null, got {name!r}")


def _resize(x: Tensor, like: Tensor) -> Tensor:
    """To a coarser size by max pooling, to a finer one by nearest neighbour."""
    height, width = like.shape[-2:]
    if x.shape[-2] > height:
        return F.adaptive_max_pool2d(x, (height, width))
    return upsample(x, like)
