"""No sampling at all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from frcnn.modeling.roles import SAMPLERS, Sampler
from frcnn.modeling.samplers.drawing import labelled
from frcnn.structures import Matches


@SAMPLERS.register
class AllSampler(Sampler):
    """Takes every candidate that is not discarded."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size_per_image = None

    def forward(
        self, matches: Matches, hardness: Callable[[], Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return labelled(matches)
