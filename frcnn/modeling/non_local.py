"""The non-local block, which necks and poolers share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class NonLocalBlock(nn.Module):
    """Every position takes what it wants from all others (Wang et al., https://arxiv.org/abs/1711.07971).

    Its output convolution starts at 0, so that at first it changes nothing.

    Args:
        channels: width of the map.
        inner_channels: width in which positions are compared and taken from.
        scale: factor of the products that positions are compared by; None is 1 / sqrt(inner_channels).
    """

    def __init__(self, channels: int, *, inner_channels: int, scale: float | None) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, inner_channels, 1) for _ in range(3))
        self.output = nn.Conv2d(inner_channels, channels, 1)
        self.scale = scale
        for layer, std in ((self.query, 0.01), (self.key, 0.01), (self.value, 0.01), (self.output, 0.0)):
            nn.init.normal_(layer.weight, std=std)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2)[:, None] for layer in (self.query, self.key, self.value)
        )  # [B, 1, HW, inner_channels] each
        taken = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return x + self.output(taken[:, 0].transpose(1, 2).unflatten(2, x.shape[2:]))
