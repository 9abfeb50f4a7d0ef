"""Positives from one sampler, negatives from another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from frcnn.modeling.roles import SAMPLERS, Sampler
from frcnn.modeling.samplers.drawing import draw
from frcnn.structures import Matches


@SAMPLERS.register
class CombinedSampler(Sampler):
    """Takes the positives of one sampler and the negatives of another, such as the two of Libra R-CNN.

    Both must have the same `batch_size_per_image`, which is that of the two together: if their positives and negatives
    are more, some of the negatives are left out at random.

    Args:
        positive: the sampler whose positives are taken.
        negative: the sampler whose negatives are taken.
    """

    def __init__(self, *, positive: Sampler, negative: Sampler) -> None:
        super().__init__()
        if positive.batch_size_per_image != negative.batch_size_per_image:
            raise ValueError(
                "positive and negative must have the same batch_size_per_image, got "
                f"{positive.batch_size_per_image} and {negative.batch_size_per_image}"
            )
        self.positive = positive
        self.negative = negative
        self.batch_size_per_image = positive.batch_size_per_image

    def forward(
        self, matches: Matches, hardness: Callable[[], Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        positive, _ = self.positive(matches, hardness, generator)
        _, negative = self.negative(matches, hardness, generator)
        if self.batch_size_per_image is not None:
            negative = draw(negative, max(0, self.batch_size_per_image - len(positive)), generator)
        return positive, negative
