"""Instance-balanced sampling of positives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from frcnn.modeling.roles import SAMPLERS
from frcnn.modeling.samplers.drawing import QuotaSampler, draw, draw_evenly, labelled
from frcnn.structures import Matches


@SAMPLERS.register
class InstanceBalancedSampler(QuotaSampler):
    """Positives drawn equally over the ground truths (Libra R-CNN, https://arxiv.org/abs/1904.02701), and random negatives.

    A ground truth with few positives gives all of them, and the others share what it leaves.

    Args:
        batch_size_per_image: how many candidates are drawn in an image, if there are enough.
        positive_fraction: the largest share of them that may be positive.
    """

    def forward(
        self, matches: Matches, hardness: Callable[[], Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        positive, negative = labelled(matches)
        num_positive, num_negative = self.quota(len(positive), len(negative))
        return (
            draw_evenly(positive, matches.gt_index[positive], num_positive, generator),
            draw(negative, num_negative, generator),
        )
