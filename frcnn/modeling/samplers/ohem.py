"""Online hard example mining."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from frcnn.modeling.roles import SAMPLERS
from frcnn.modeling.samplers.drawing import QuotaSampler, labelled
from frcnn.structures import Matches


@SAMPLERS.register
class OHEMSampler(QuotaSampler):
    """Online hard example mining (https://arxiv.org/abs/1604.03540): the candidates with the largest current loss.

    Args:
        batch_size_per_image: how many candidates are taken in an image, if there are enough.
        positive_fraction: the largest share of them that may be positive.
    """

    def forward(
        self, matches: Matches, hardness: Callable[[], Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        positive, negative = labelled(matches)
        num_positive, num_negative = self.quota(len(positive), len(negative))
        loss = hardness()  # [N]
        return _hardest(positive, num_positive, loss), _hardest(negative, num_negative, loss)


def _hardest(index: Tensor, count: int, loss: Tensor) -> Tensor:
    return index[loss[index].topk(count).indices].sort().values
