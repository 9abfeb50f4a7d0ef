"""ConvNeXt (Liu et al., https://arxiv.org/abs/2201.03545), layers by torchvision."""

from __future__ import annotations

from functools import partial
from typing import Literal, cast

from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.convnext import CNBlock

from frcnn.modeling.backbones.staged import FeatureName, PatchConv, Stage, StagedBackbone, set_drop_path
from frcnn.modeling.layers import NormName, make_channels_last_norm, make_norm
from frcnn.modeling.roles import BACKBONES

Size = Literal["tiny", "small", "base", "large"]
_DROP_PATH = {"tiny": 0.1, "small": 0.4, "base": 0.5, "large": 0.5}


@BACKBONES.register
class ConvNeXt(StagedBackbone):
    """ConvNeXt-T, -S, -B or -L (https://arxiv.org/abs/2201.03545).

    Images of any size: the strided convolutions pad what is missing of their last patch.

    Args:
        size: tiny, small, base or large.
        norm: LN (the paper, and for pretrained weights), BN, SyncBN, GN or FrozenBN.
        norm_eps: added to the norms' variance.
        out_norm: a norm behind every map that is returned, or null for none; it is not in the pretrained weights.
        drop_path: how often the last block is left out in training; earlier ones are less often, evenly; null is
            torchvision's rate for the size (0.1, 0.4, 0.5, 0.5).
        freeze_at: how many stages, from the first, do not learn: 0 none, 1 up to c2, ... 4 all; the first takes the stem
            with it, each later one the step before it.
        out_features: the feature maps that are returned: c2 to c5 have strides 4 to 32.
    """

    def __init__(
        self,
        *,
        size: Size = "tiny",
        norm: NormName = "LN",
        norm_eps: float = 1e-6,
        out_norm: NormName | None = "LN",
        drop_path: float | None = None,
        freeze_at: int = 0,
        out_features: tuple[FeatureName, ...] = ("c2", "c3", "c4", "c5"),
    ) -> None:
        network = get_model(
            f"convnext_{size}",
            weights=None,
            norm_layer=partial(make_norm, norm, eps=norm_eps),
            block=partial(_block, norm, norm_eps),
        )
        set_drop_path(network, _DROP_PATH[size] if drop_path is None else drop_path)
        layers = network.features
        layers[0][0] = PatchConv.of(layers[0][0])
        for i in (2, 4, 6):
            layers[i][1] = PatchConv.of(layers[i][1])
        stages = [
            Stage(cast(FeatureName, f"c{i + 2}"), 2 * i + 2, layers[2 * i + 1][0].layer_scale.shape[0])
            for i in range(4)
        ]
        super().__init__(layers, stages, out_features, freeze_at)
        self.norms = nn.ModuleDict()
        if out_norm is not None:
            for name, shape in self.feature_shapes.items():
                self.norms[name] = make_norm(out_norm, shape.channels, norm_eps)

    def output(self, name: str, x: Tensor) -> Tensor:
        return self.norms[name](x) if name in self.norms else x


def _block(norm: NormName, norm_eps: float, channels: int, layer_scale: float, drop_path: float) -> CNBlock:
    return CNBlock(channels, layer_scale, drop_path, partial(make_channels_last_norm, norm, eps=norm_eps))
