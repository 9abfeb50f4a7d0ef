"""What the backbones made of torchvision's classifiers share: a row of layers, cut into stages that halve the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from frcnn.modeling.features import check_out_features
from frcnn.modeling.layers import freeze
from frcnn.modeling.roles import Backbone
from frcnn.structures import FeatureShape

FeatureName = Literal["c1", "c2", "c3", "c4", "c5"]
"""The map of stride 2 ** number, as papers on pyramids number them."""


@dataclass(frozen=True)
class Stage:
    """Layers in a row whose output can be a feature.

    Args:
        name: of the feature.
        end: how many layers of the network there are up to its last one.
        channels: width of its output.
    """

    name: FeatureName
    end: int
    channels: int

    @property
    def stride(self) -> int:
        return 2 ** int(self.name[1:])


class StagedBackbone(Backbone):
    """Runs layers in a row and returns the outputs of the stages asked for; layers behind the last one are not kept.

    Args:
        layers: the network without what follows its last map.
        stages: fine to coarse.
        out_features: names of the stages that are returned.
        freeze_at: how many stages, from the first, do not learn.
    """

    def __init__(
        self, layers: nn.Sequential, stages: Sequence[Stage], out_features: tuple[FeatureName, ...], freeze_at: int
    ) -> None:
        super().__init__()
        check_out_features(out_features, [stage.name for stage in stages])
        if not 0 <= freeze_at <= len(stages):
            first = stages[0].name
            raise ValueError(f"freeze_at must be in 0..{len(stages)} (0 none, 1 up to {first}, ...), got {freeze_at}")
        for i in range(stages[freeze_at - 1].end if freeze_at else 0):
            layers[i] = freeze(layers[i])
        wanted = [stage for stage in stages if stage.name in out_features]
        self.features = layers[: wanted[-1].end]
        self.name_at = {stage.end - 1: stage.name for stage in wanted}
        self.feature_shapes = {stage.name: FeatureShape(stage.channels, stage.stride) for stage in wanted}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}
        x = images
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.name_at:
                features[self.name_at[i]] = self.output(self.name_at[i], x)
        return features

    def output(self, name: str, x: Tensor) -> Tensor:
        """The feature [B, C, H, W] that is made of the output of a stage: the output itself."""
        return x


class PatchConv(nn.Conv2d):
    """A convolution whose step is its kernel, for any size: what is missing at the right and below is padded with 0."""

    def forward(self, x: Tensor) -> Tensor:
        bottom, right = (-side % step for side, step in zip(x.shape[-2:], self.stride, strict=True))
        return super().forward(F.pad(x, (0, right, 0, bottom)))

    @classmethod
    def of(cls, conv: nn.Conv2d) -> PatchConv:
        """The same convolution, weights included, for any size."""
        made = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            device="meta",
        )
        made.weight, made.bias = conv.weight, conv.bias
        return made


def set_drop_path(network: nn.Module, rate: float) -> None:
    """Stochastic depth (https://arxiv.org/abs/1603.09382): how often a block is left out, 0 at the first, rising evenly.

    Args:
        network: has one `StochasticDepth` for each block, in order.
        rate: at the last block, in [0, 1).

    Raises:
        ValueError: the rate is outside.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path must be in [0, 1), got {rate}")
    layers = [layer for layer in network.modules() if isinstance(layer, StochasticDepth)]
    for i, layer in enumerate(layers):
        layer.p = rate * i / max(1, len(layers) - 1)


def halves(layer: nn.Module) -> bool:
    """Whether there is a convolution of stride 2 in it."""
    return any(isinstance(part, nn.Conv2d) and part.stride == (2, 2) for part in layer.modules())
