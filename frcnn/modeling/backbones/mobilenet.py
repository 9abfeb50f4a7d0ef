"""MobileNetV2 (https://arxiv.org/abs/1801.04381) and V3 (https://arxiv.org/abs/1905.02244), layers by torchvision."""

from __future__ import annotations

from functools import partial
from typing import Literal, cast, get_args

from torch import Tensor, nn
from torchvision.models import mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small

from frcnn.modeling.features import check_out_features
from frcnn.modeling.layers import NormName, freeze, make_norm
from frcnn.modeling.roles import BACKBONES, Backbone
from frcnn.structures import FeatureShape

FeatureName = Literal["c0", "c1", "c2", "c3", "c4", "c5"]


class _MobileNet(Backbone):
    """The layers of a torchvision MobileNet and the names of its stages.

    As in torchvision, a stage begins at a block that halves the map: c0 is the first convolution (stride 2), c1 to c4
    are the outputs of the halving blocks (strides 4 to 32), c5 is the output of the last convolution (stride 32 too).
    """

    def __init__(self, layers: nn.Sequential, out_features: tuple[FeatureName, ...], freeze_at: int) -> None:
        super().__init__()
        names = get_args(FeatureName)
        check_out_features(out_features, names)
        if not 0 <= freeze_at <= len(names):
            raise ValueError(f"freeze_at must be in 0..{len(names)} (0 none, 1 the first stage, ...), got {freeze_at}")

        halving = [i for i, layer in enumerate(layers) if i > 0 and _halves(layer)]
        starts = [0, *halving, len(layers) - 1]  # where each stage begins
        strides = [2 ** (1 + min(stage, len(halving))) for stage in range(len(names))]

        for i in range(len(layers) if freeze_at == len(names) else starts[freeze_at]):
            layers[i] = freeze(layers[i])
        wanted = [names.index(name) for name in names if name in out_features]
        self.features = layers[: starts[wanted[-1]] + 1]
        self.name_at = {starts[stage]: names[stage] for stage in wanted}
        self.feature_shapes = {
            names[stage]: FeatureShape(cast(int, layers[starts[stage]].out_channels), strides[stage])
            for stage in wanted
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = {}
        x = images
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.name_at:
                features[self.name_at[i]] = x
        return features


def _halves(layer: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) and part.stride == (2, 2) for part in layer.modules())


@BACKBONES.register
class MobileNetV2(_MobileNet):
    """MobileNetV2 (https://arxiv.org/abs/1801.04381); with its defaults one map of stride 32 and 1280 channels.

    Args:
        norm: FrozenBN (fixed statistics, for pretrained weights), BN, SyncBN or GN.
        norm_eps: added to the norms' variance.
        freeze_at: how many stages, from the first, do not learn: 0 none, 6 all; their batch norms become FrozenBN.
        out_features: the feature maps that are returned: c0 to c4 have strides 2 to 32, c5 has 32.
    """

    def __init__(
        self,
        *,
        norm: NormName = "FrozenBN",
        norm_eps: float = 1e-5,
        freeze_at: int = 0,
        out_features: tuple[FeatureName, ...] = ("c5",),
    ) -> None:
        network = mobilenet_v2(weights=None, norm_layer=partial(make_norm, norm, eps=norm_eps))
        super().__init__(network.features, out_features, freeze_at)


@BACKBONES.register
class MobileNetV3(_MobileNet):
    """MobileNetV3 (https://arxiv.org/abs/1905.02244); with its defaults one map of stride 32 and 960 channels.

    Args:
        size: large or small.
        norm: FrozenBN (fixed statistics, for pretrained weights), BN, SyncBN or GN.
        norm_eps: added to the norms' variance; torchvision's classification weights were trained with 1e-3, its
            detection weights with 1e-5.
        freeze_at: how many stages, from the first, do not learn: 0 none, 6 all; their batch norms become FrozenBN.
        out_features: the feature maps that are returned: c0 to c4 have strides 2 to 32, c5 has 32; c4 and c5 under an
            FPN are torchvision's detector.
    """

    def __init__(
        self,
        *,
        size: Literal["large", "small"] = "large",
        norm: NormName = "FrozenBN",
        norm_eps: float = 1e-3,
        freeze_at: int = 0,
        out_features: tuple[FeatureName, ...] = ("c5",),
    ) -> None:
        build = {"large": mobilenet_v3_large, "small": mobilenet_v3_small}[size]
        network = build(weights=None, norm_layer=partial(make_norm, norm, eps=norm_eps))
        super().__init__(network.features, out_features, freeze_at)
