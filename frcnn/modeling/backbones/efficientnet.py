"""EfficientNet (https://arxiv.org/abs/1905.11946) and V2 (https://arxiv.org/abs/2104.00298), layers by torchvision."""

from __future__ import annotations

from typing import Any, Literal, cast

from torch import nn
from torchvision.models import get_model

from frcnn.modeling.backbones.staged import FeatureName, Stage, StagedBackbone, halves, set_drop_path
from frcnn.modeling.layers import NormName, with_norm
from frcnn.modeling.roles import BACKBONES

Model = Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "v2_s", "v2_m", "v2_l"]


@BACKBONES.register
class EfficientNet(StagedBackbone):
    """EfficientNet-B0 to -B7 and -V2, without the 1x1 convolution that widens the last map for classification.

    EfficientNet: https://arxiv.org/abs/1905.11946. V2: https://arxiv.org/abs/2104.00298.

    Args:
        model: b0 to b7, v2_s, v2_m or v2_l.
        norm: FrozenBN (fixed statistics, for pretrained weights), BN, SyncBN, GN or LN.
        norm_eps: added to the norms' variance; null is what torchvision's weights were trained with (1e-5 for b0 to b4,
            1e-3 for the others).
        drop_path: how often the last block is left out in training; earlier ones are less often, evenly.
        freeze_at: how many stages, from the first, do not learn: 0 none, 1 up to c1, ... 5 all; their batch norms become
            FrozenBN.
        out_features: the feature maps that are returned: c1 to c5 have strides 2 to 32.
    """

    def __init__(
        self,
        *,
        model: Model = "b0",
        norm: NormName = "FrozenBN",
        norm_eps: float | None = None,
        drop_path: float = 0.2,
        freeze_at: int = 2,
        out_features: tuple[FeatureName, ...] = ("c2", "c3", "c4", "c5"),
    ) -> None:
        network = get_model(f"efficientnet_{model}", weights=None)
        set_drop_path(network, drop_path)
        layers = cast(nn.Sequential, with_norm(network.features[:-1], norm, norm_eps))
        super().__init__(layers, _stages(layers), out_features, freeze_at)


def _stages(layers: Any) -> list[Stage]:
    """A stage ends before the next layer that halves the map."""
    starts = [i for i, layer in enumerate(layers) if halves(layer)]
    ends = [*starts[1:], len(layers)]
    return [
        Stage(cast(FeatureName, f"c{number}"), end, layers[end - 1][-1].out_channels)
        for number, end in enumerate(ends, start=1)
    ]
