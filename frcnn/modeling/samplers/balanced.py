"""The sampler of Faster R-CNN: random, with a bound on the share of positives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from frcnn.modeling.roles import SAMPLERS
from frcnn.modeling.samplers.drawing import QuotaSampler, draw, labelled
from frcnn.structures import Matches


@SAMPLERS.register
class BalancedPositiveNegativeSampler(QuotaSampler):
    """Draws up to a fraction of positives at random, and fills the batch with random negatives.

    Args:
        batch_size_per_image: how many candidates are drawn in an image, if there are enough.
        positive_fraction: the largest share of them that may be positive.
    """

    def forward(
        self, matches: Matches, hardness: Callable[[], Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        positive, negative = labelled(matches)
        num_positive, num_negative = self.quota(len(positive), len(negative))
        return draw(positive, num_positive, generator), draw(negative, num_negative, generator)
