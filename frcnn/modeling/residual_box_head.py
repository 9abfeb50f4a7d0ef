"""A box head of residual blocks: the conv-head of Double-Head R-CNN (https://arxiv.org/abs/1904.06493, section 4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.modeling.layers import ConvNorm, NormName
from frcnn.modeling.roles import BOX_HEADS, BoxHead


@BOX_HEADS.register
class ResidualBoxHead(BoxHead):
    """Residual blocks and the mean over the box: the conv-head of Double-Head R-CNN.

    The first block widens the features; the others are bottlenecks of a quarter of the width.

    Args:
        num_blocks: how many bottlenecks follow the first block.
        width: of every block's output.
        norm: norm layer behind every convolution, or null for none.
        norm_eps: added to the norms' variance.
    """

    def __init__(
        self,
        in_channels: int,
        resolution: int,
        *,
        num_blocks: int = 4,
        width: int = 1024,
        norm: NormName | None = "BN",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if num_blocks < 0:
            raise ValueError(f"num_blocks must be at least 0, got {num_blocks}")
        if width < 4:
            raise ValueError(f"width must be at least 4, got {width}")

        def conv(inputs: int, outputs: int, kernel_size: int, relu: bool = True) -> ConvNorm:
            return ConvNorm(inputs, outputs, kernel_size, norm=norm, norm_eps=norm_eps, relu=relu)

        def bottleneck() -> ResidualBlock:
            inner = width // 4
            return ResidualBlock(
                nn.Sequential(conv(width, inner, 1), conv(inner, inner, 3), conv(inner, width, 1, relu=False))
            )

        widen = nn.Sequential(conv(in_channels, in_channels, 3), conv(in_channels, width, 1, relu=False))
        first = ResidualBlock(widen, conv(in_channels, width, 1, relu=False))
        self.blocks = nn.Sequential(first, *(bottleneck() for _ in range(num_blocks)))
        self.out_channels = width
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, roi_features: Tensor) -> Tensor:
        """[R, C, h, w] -> [R, width]."""
        return self.blocks(roi_features).mean(dim=(2, 3))


class ResidualBlock(nn.Module):
    """The sum of a way through layers and a short cut, and a ReLU.

    Args:
        layers: the long way.
        shortcut: the short one; None leaves the input as it is.
    """

    def __init__(self, layers: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = layers
        self.shortcut = shortcut if shortcut is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))
