"""Swin Transformer (https://arxiv.org/abs/2103.14030) and V2 (https://arxiv.org/abs/2111.09883), layers by torchvision."""

from __future__ import annotations

from functools import partial
from typing import Literal, cast

from torch import Tensor, nn
from torchvision.models import get_model

from frcnn.modeling.backbones.staged import FeatureName, PatchConv, Stage, StagedBackbone, set_drop_path
from frcnn.modeling.layers import NormName, make_channels_last_norm, make_norm
from frcnn.modeling.roles import BACKBONES

Model = Literal["t", "s", "b", "v2_t", "v2_s", "v2_b"]
_DROP_PATH = {"t": 0.2, "s": 0.3, "b": 0.5}


@BACKBONES.register
class SwinTransformer(StagedBackbone):
    """Swin-T, -S or -B, of version 1 (https://arxiv.org/abs/2103.14030) or 2 (https://arxiv.org/abs/2111.09883).

    Images of any size: windows and patches pad what they miss.

    Args:
        model: t, s or b, or v2_t, v2_s or v2_b.
        norm: LN (the paper, and for pretrained weights), BN, SyncBN, GN or FrozenBN.
        norm_eps: added to the norms' variance.
        out_norm: a norm behind every map that is returned, or null for none; it is not in the pretrained weights.
        drop_path: how often the last block is left out in training; earlier ones are less often, evenly; null is
            torchvision's rate for the size (0.2, 0.3, 0.5).
        freeze_at: how many stages, from the first, do not learn: 0 none, 1 up to c2, ... 4 all; the first takes the
            embedding of the patches with it, each later one the merging before it.
        out_features: the feature maps that are returned: c2 to c5 have strides 4 to 32.
    """

    def __init__(
        self,
        *,
        model: Model = "t",
        norm: NormName = "LN",
        norm_eps: float = 1e-5,
        out_norm: NormName | None = "LN",
        drop_path: float | None = None,
        freeze_at: int = 0,
        out_features: tuple[FeatureName, ...] = ("c2", "c3", "c4", "c5"),
    ) -> None:
        network = get_model(
            f"swin_{model}", weights=None, norm_layer=partial(make_channels_last_norm, norm, eps=norm_eps)
        )
        set_drop_path(network, _DROP_PATH[model[-1]] if drop_path is None else drop_path)
        layers = network.features
        layers[0][0] = PatchConv.of(layers[0][0])
        width = layers[0][0].out_channels
        stages = [Stage(cast(FeatureName, f"c{i + 2}"), 2 * i + 2, width * 2**i) for i in range(4)]
        super().__init__(layers, stages, out_features, freeze_at)
        self.norms = nn.ModuleDict()
        if out_norm is not None:
            for name, shape in self.feature_shapes.items():
                self.norms[name] = make_norm(out_norm, shape.channels, norm_eps)

    def output(self, name: str, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2).contiguous()
        return self.norms[name](x) if name in self.norms else x
