"""Samplers: which of the labelled candidates of one image take part in the loss.

Each returns the indices of the positives and of the negatives, both ascending, so that only the choice is random and
not the order. Discarded candidates are never returned.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from frcnn.modeling.roles import SAMPLERS, Sampler
from frcnn.structures import BACKGROUND_LABEL, POSITIVE_LABEL, Matches


class _QuotaSampler(Sampler):
    """A batch of fixed size per image, of which at most a fraction is positive."""

    batch_size_per_image: int

    def __init__(self, *, batch_size_per_image: int, positive_fraction: float) -> None:
        super().__init__()
        if batch_size_per_image < 1:
            raise ValueError(f"batch_size_per_image must be at least 1, got {batch_size_per_image}")
        if not 0 <= positive_fraction <= 1:
            raise ValueError(f"positive_fraction must be in [0, 1], got {positive_fraction}")
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    def quota(self, available_positive: int, available_negative: int) -> tuple[int, int]:
        """How many positives and negatives to take; negatives fill what positives leave free, not the reverse."""
        num_positive = min(int(self.batch_size_per_image * self.positive_fraction), available_positive)
        return num_positive, min(self.batch_size_per_image - num_positive, available_negative)


@SAMPLERS.register
class BalancedPositiveNegativeSampler(_QuotaSampler):
    """Draws up to a fraction of positives at random, and fills the batch with random negatives.

    Args:
        batch_size_per_image: how many candidates are drawn in an image, if there are enough.
        positive_fraction: the largest share of them that may be positive.
    """

    def forward(
        self, matches: Matches, hardness: Callable[[], Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        positive, negative = _labelled(matches)
        num_positive, num_negative = self.quota(len(positive), len(negative))
        return _draw(positive, num_positive, generator), _draw(negative, num_negative, generator)


@SAMPLERS.register
class OHEMSampler(_QuotaSampler):
    """Online hard example mining (https://arxiv.org/abs/1604.03540): the candidates with the largest current loss.

    Args:
        batch_size_per_image: how many candidates are taken in an image, if there are enough.
        positive_fraction: the largest share of them that may be positive.
    """

    def forward(
        self, matches: Matches, hardness: Callable[[], Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        positive, negative = _labelled(matches)
        num_positive, num_negative = self.quota(len(positive), len(negative))
        loss = hardness()  # [N]
        return _hardest(positive, num_positive, loss), _hardest(negative, num_negative, loss)


@SAMPLERS.register
class AllSampler(Sampler):
    """Takes every candidate that is not discarded."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size_per_image = None

    def forward(
        self, matches: Matches, hardness: Callable[[], Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return _labelled(matches)


def _labelled(matches: Matches) -> tuple[Tensor, Tensor]:
    """Indices of all positives and of all negatives."""
    positive = torch.nonzero(matches.labels == POSITIVE_LABEL).squeeze(1)
    negative = torch.nonzero(matches.labels == BACKGROUND_LABEL).squeeze(1)
    return positive, negative


def _draw(index: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(len(index), generator=generator, device=index.device)[:count]
    return index[chosen].sort().values


def _hardest(index: Tensor, count: int, loss: Tensor) -> Tensor:
    return index[loss[index].topk(count).indices].sort().values
