"""Bidirectional feature pyramid of EfficientDet (Tan et al., https://arxiv.org/abs/1911.09070)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.layers import ConvNorm, NormName
from frcnn.modeling.necks.levels import fine_to_coarse, level_names, upsample
from frcnn.modeling.roles import NECKS, Features, FeatureShapes, Neck
from frcnn.structures import FeatureShape


@NECKS.register
class BiFPN(Neck):
    """Rounds of coarse-to-fine and fine-to-coarse paths; each level learns how much to take from each of its inputs.

    Every input is brought to one width by one 1x1 convolution, which both paths of the first round share. Extra levels are
    made of the coarsest input, as in the authors' code: by a 1x1 convolution of its own if it is not as wide, and pooling.

    Args:
        in_features: the maps to use, fine to coarse; null means all.
        out_channels: width of every level.
        num_rounds: how many times both paths are walked.
        num_extra_levels: coarser levels on top, by 3x3 max pooling of stride 2.
        norm: norm behind every convolution (FrozenBN, BN, SyncBN, GN or LN).
        norm_eps: added to the norms' variance.
    """

    def __init__(
        self,
        feature_shapes: FeatureShapes,
        *,
        in_features: tuple[str, ...] | None = None,
        out_channels: int = 160,
        num_rounds: int = 3,
        num_extra_levels: int = 1,
        norm: NormName = "BN",
        norm_eps: float = 1e-3,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("out_channels", out_channels, 1),
            ("num_rounds", num_rounds, 1),
            ("num_extra_levels", num_extra_levels, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.in_features = tuple(feature_shapes) if in_features is None else tuple(in_features)
        shapes = fine_to_coarse(self.in_features, feature_shapes)
        strides = [shape.stride for shape in shapes]
        if len(strides) + num_extra_levels < 2 or any(b != 2 * a for a, b in itertools.pairwise(strides)):
            raise ValueError(
                f"BiFPN needs two or more levels, each half as fine as the one before, but {list(self.in_features)} "
                f"have strides {strides} and num_extra_levels is {num_extra_levels}"
            )
        levels = level_names(self.in_features)
        last_number = int(levels[-1].removeprefix("p"))
        extra = tuple(f"p{last_number + 1 + i}" for i in range(num_extra_levels))
        self.levels = (*levels, *extra)
        self.lateral = nn.ModuleDict(
            {
                level: ConvNorm(shape.channels, out_channels, 1, norm=norm, norm_eps=norm_eps)
                for level, shape in zip(levels, shapes, strict=True)
            }
        )
        self.extra_lateral: nn.Module = nn.Identity()
        if num_extra_levels and shapes[-1].channels != out_channels:
            self.extra_lateral = ConvNorm(shapes[-1].channels, out_channels, 1, norm=norm, norm_eps=norm_eps)
        self.rounds = nn.ModuleList(
            BiFPNRound(len(self.levels), out_channels, norm, norm_eps) for _ in range(num_rounds)
        )
        self.size_divisibility = strides[-1]
        strides += [strides[-1] * 2 ** (i + 1) for i in range(num_extra_levels)]
        self.feature_shapes = {
            level: FeatureShape(out_channels, stride) for level, stride in zip(self.levels, strides, strict=True)
        }

    def forward(self, features: Features) -> dict[str, Tensor]:
        pyramid = [
            lateral(features[name]) for name, lateral in zip(self.in_features, self.lateral.values(), strict=True)
        ]
        coarsest = self.extra_lateral(features[self.in_features[-1]])
        while len(pyramid) < len(self.levels):
            coarsest = _halve(coarsest)
            pyramid.append(coarsest)
        for one_round in self.rounds:
            pyramid = one_round(pyramid)
        return dict(zip(self.levels, pyramid, strict=True))


class BiFPNRound(nn.Module):
    """One path from coarse to fine and one back.

    Args:
        num_levels: two or more.
        channels: width of every level.
        norm: norm behind the convolutions.
        norm_eps: added to the norms' variance.
    """

    def __init__(self, num_levels: int, channels: int, norm: NormName, norm_eps: float) -> None:
        super().__init__()
        inner = range(1, num_levels - 1)
        self.down = nn.ModuleList(Fusion(2, channels, norm, norm_eps) for _ in range(num_levels - 1))
        self.up = nn.ModuleList(
            Fusion(3 if level in inner else 2, channels, norm, norm_eps) for level in range(1, num_levels)
        )

    def forward(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """L x [B, C, H, W], fine to coarse -> the same."""
        coarse_to_fine = [pyramid[-1]]
        for level, fuse in reversed(list(enumerate(self.down))):
            coarser = upsample(coarse_to_fine[0], pyramid[level])
            coarse_to_fine.insert(0, fuse([pyramid[level], coarser]))
        outputs = [coarse_to_fine[0]]
        for level, fuse in enumerate(self.up, start=1):
            # The coarsest level has no node of its own on the way down: its input is all there is.
            own = [pyramid[level]] if level == len(pyramid) - 1 else [pyramid[level], coarse_to_fine[level]]
            outputs.append(fuse([*own, _halve(outputs[-1])]))
        return outputs


class Fusion(nn.Module):
    """The paper's fast normalised fusion: a weighted mean with learned weights, then a separable 3x3 convolution.

    Args:
        num_inputs: how many maps of one size.
        channels: width of each.
        norm: norm behind the convolution.
        norm_eps: added to the norm's variance.
    """

    def __init__(self, num_inputs: int, channels: int, norm: NormName, norm_eps: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(num_inputs))
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = ConvNorm(channels, channels, 1, norm=norm, norm_eps=norm_eps)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        weights = self.weights.relu()
        weights = (weights / (weights.sum() + 1e-4)).to(inputs[0].dtype)  # [num_inputs]
        fused = sum(
            (weight * x for weight, x in zip(weights.unbind(), inputs, strict=True)), torch.zeros_like(inputs[0])
        )
        return self.pointwise(self.depthwise(F.silu(fused)))


def _halve(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)] by 3x3 max pooling."""
    return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
