"""The adaptive convolution of Cascade RPN (https://arxiv.org/abs/1909.06720, section 3.2): taps that follow an anchor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

KERNEL_SIZE = 3


class AdaptiveConv(nn.Module):
    """A 3x3 convolution whose taps are spread over the anchor of each location (section 3.2).

    Args:
        channels: width of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, KERNEL_SIZE, KERNEL_SIZE))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, x: Tensor, anchors: Tensor, moved: Tensor, stride: int) -> Tensor:
        """Convolves.

        Args:
            x: [B, C, H, W].
            anchors: [H*W, 4] in pixels, in the order y, x: where each location was.
            moved: [B, H*W, 4]: what it is to see.
            stride: of the feature map.

        Returns:
            [B, C, H, W].
        """
        offsets = adaptive_offsets(anchors, moved, stride).unflatten(1, x.shape[-2:]).permute(0, 3, 1, 2)
        # Positions in half precision would miss the pixels they mean, and the kernel asks for one type: float32.
        return deform_conv2d(x.float(), offsets.contiguous(), self.weight.float(), padding=KERNEL_SIZE // 2).to(x.dtype)


def adaptive_offsets(anchors: Tensor, moved: Tensor, stride: int) -> Tensor:
    """How far each tap of a 3x3 convolution moves, so that the nine lie on the corners, sides and centre of the anchor.

    Args:
        anchors: [N, 4] in pixels; a location of the map lies where the centre of its anchor is.
        moved: [B, N, 4] in pixels, what the taps are spread over.
        stride: of the feature map.

    Returns:
        [B, N, 18] in cells of the map: y and x of each tap, taps row by row, as `deform_conv2d` takes them.
    """
    x1, y1, x2, y2 = (moved.float() / stride).unbind(-1)  # [B, N] each, in cells
    at_x1, at_y1, at_x2, at_y2 = (anchors.float() / stride).unbind(-1)  # [N] each
    center_x, center_y = (x1 + x2 - at_x1 - at_x2) / 2, (y1 + y2 - at_y1 - at_y2) / 2
    wider, higher = (x2 - x1) / 2 - 1, (y2 - y1) / 2 - 1  # than the unmoved taps, which are one cell from the centre
    offsets = []
    for tap_y in (-1, 0, 1):
        for tap_x in (-1, 0, 1):
            offsets += [center_y + tap_y * higher, center_x + tap_x * wider]
    # The kernel turns positions into memory addresses: one that is not a number would read anywhere.
    return torch.stack(offsets, dim=-1).nan_to_num(nan=0.0)
