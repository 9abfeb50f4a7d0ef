"""RegNet (Radosavovic et al., https://arxiv.org/abs/2003.13678), layers by torchvision."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, cast

import torchvision
from torch import nn
from torchvision.models.regnet import BlockParams

from frcnn.modeling.backbones.staged import FeatureName, Stage, StagedBackbone
from frcnn.modeling.layers import NormName, make_norm
from frcnn.modeling.roles import BACKBONES

Model = Literal[
    "x_400mf",
    "x_800mf",
    "x_1_6gf",
    "x_3_2gf",
    "x_4gf",
    "x_8gf",
    "x_16gf",
    "x_32gf",
    "y_400mf",
    "y_800mf",
    "y_1_6gf",
    "y_3_2gf",
    "y_4gf",
    "y_8gf",
    "y_16gf",
    "y_32gf",
]

# Blocks and width of each stage, and the width of a group: the paper's tables, rounded as torchvision's weights are.
# torchvision has no 4 GF, the size that detectron2's model zoo uses.
_PARAMETERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "x_400mf": ((1, 2, 7, 12), (32, 64, 160, 400), 16),
    "x_800mf": ((1, 3, 7, 5), (64, 128, 288, 672), 16),
    "x_1_6gf": ((2, 4, 10, 2), (72, 168, 408, 912), 24),
    "x_3_2gf": ((2, 6, 15, 2), (96, 192, 432, 1008), 48),
    "x_4gf": ((2, 5, 14, 2), (80, 240, 560, 1360), 40),
    "x_8gf": ((2, 5, 15, 1), (80, 240, 720, 1920), 120),
    "x_16gf": ((2, 6, 13, 1), (256, 512, 896, 2048), 128),
    "x_32gf": ((2, 7, 13, 1), (336, 672, 1344, 2520), 168),
    "y_400mf": ((1, 3, 6, 6), (48, 104, 208, 440), 8),
    "y_800mf": ((1, 3, 8, 2), (64, 144, 320, 784), 16),
    "y_1_6gf": ((2, 6, 17, 2), (48, 120, 336, 888), 24),
    "y_3_2gf": ((2, 5, 13, 1), (72, 216, 576, 1512), 24),
    "y_4gf": ((2, 6, 12, 2), (128, 192, 512, 1088), 64),
    "y_8gf": ((2, 4, 10, 1), (224, 448, 896, 2016), 56),
    "y_16gf": ((2, 4, 11, 1), (224, 448, 1232, 3024), 112),
    "y_32gf": ((2, 5, 12, 1), (232, 696, 1392, 3712), 232),
}


@BACKBONES.register
class RegNet(StagedBackbone):
    """RegNetX, and RegNetY with squeeze and excitation (https://arxiv.org/abs/2003.13678).

    Args:
        model: x or y, and how many operations an image of 224 pixels takes: x_3_2gf has 3.2 billion. torchvision has
            weights for all but x_4gf and y_4gf.
        norm: FrozenBN (fixed statistics, for pretrained weights), BN, SyncBN, GN or LN.
        norm_eps: added to the norms' variance.
        freeze_at: how many stages, from the first, do not learn: 0 none, 1 the stem (c1), 2 also c2, up to 5; their
            batch norms become FrozenBN.
        out_features: the feature maps that are returned: c1 to c5 have strides 2 to 32.
    """

    def __init__(
        self,
        *,
        model: Model = "x_3_2gf",
        norm: NormName = "FrozenBN",
        norm_eps: float = 1e-5,
        freeze_at: int = 2,
        out_features: tuple[FeatureName, ...] = ("c2", "c3", "c4", "c5"),
    ) -> None:
        if model not in _PARAMETERS:
            raise ValueError(f"model must be one of {', '.join(_PARAMETERS)}, got {model!r}")
        network: Any = torchvision.models.RegNet(
            _block_params(model), norm_layer=partial(make_norm, norm, eps=norm_eps)
        )
        layers = [network.stem, *network.trunk_output.children()]
        stages = [Stage(cast(FeatureName, f"c{i + 1}"), i + 1, _width(layer)) for i, layer in enumerate(layers)]
        super().__init__(nn.Sequential(*layers), stages, out_features, freeze_at)


def _block_params(model: str) -> BlockParams:
    depths, widths, group_width = _PARAMETERS[model]
    return BlockParams(
        depths=list(depths),
        widths=list(widths),
        group_widths=[min(group_width, width) for width in widths],
        bottleneck_multipliers=[1.0] * 4,
        strides=[2] * 4,
        se_ratio=0.25 if model.startswith("y") else None,
    )


def _width(layer: nn.Module) -> int:
    """Width of a stage's output: that of its last convolution, which closes the last block."""
    return [part.out_channels for part in layer.modules() if isinstance(part, nn.Conv2d)][-1]
