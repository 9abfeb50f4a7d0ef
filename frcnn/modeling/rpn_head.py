"""The head of a region proposal network."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from frcnn.modeling.roles import RPN_HEADS, RPNHead, RPNOutput


@RPN_HEADS.register
class ConvRPNHead(RPNHead):
    """Scores and moves every anchor with a small stack of 3x3 convolutions, shared by all levels.

    Args:
        in_channels: channels of every feature level.
        num_anchors: anchors per location.
        num_convs: how many 3x3 convolutions come before the two 1x1 outputs.
        prior_probability: of an object at every anchor before training; a focal loss over all anchors asks for 0.01, or
            the many easy negatives drown the rest at the start.
    """

    def __init__(
        self, in_channels: int, num_anchors: int, *, num_convs: int = 1, prior_probability: float = 0.5
    ) -> None:
        super().__init__()
        if not 0 < prior_probability < 1:
            raise ValueError(f"prior_probability must be between 0 and 1, got {prior_probability}")
        if num_convs < 0:
            raise ValueError(f"num_convs must be at least 0, got {num_convs}")
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, in_channels, 3, padding=1) for _ in range(num_convs))
        self.objectness = nn.Conv2d(in_channels, num_anchors, 1)
        self.deltas = nn.Conv2d(in_channels, 4 * num_anchors, 1)
        for conv in (*self.convs, self.objectness, self.deltas):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)
        assert self.objectness.bias is not None
        nn.init.constant_(self.objectness.bias, math.log(prior_probability / (1 - prior_probability)))

    def forward(self, features: Sequence[Tensor]) -> RPNOutput:
        objectness, deltas = [], []
        for x in features:
            for conv in self.convs:
                x = conv(x).relu()
            objectness.append(self.objectness(x))  # [B, A, H, W]
            deltas.append(self.deltas(x))  # [B, 4A, H, W]
        return RPNOutput(objectness, deltas)
