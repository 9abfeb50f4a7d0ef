"""IoU-balanced sampling of negatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from frcnn.modeling.roles import SAMPLERS
from frcnn.modeling.samplers.drawing import QuotaSampler, draw, draw_by_group, labelled
from frcnn.structures import Matches


@SAMPLERS.register
class IoUBalancedSampler(QuotaSampler):
    """Random positives, and negatives drawn equally from ranges of their IoU (Libra R-CNN, https://arxiv.org/abs/1904.02701).

    The range from 0 to the highest IoU of a negative is cut into equal bins. Each bin gives the same number; what a bin
    lacks is drawn from all negatives that are left. Random negatives hardly overlap anything, these are harder. It needs
    a matcher whose quality tells negatives apart, as `IoUMatcher` does.

    Args:
        batch_size_per_image: how many candidates are drawn in an image, if there are enough.
        positive_fraction: the largest share of them that may be positive.
        num_bins: into how many ranges the IoU of negatives is cut.
    """

    def __init__(self, *, batch_size_per_image: int, positive_fraction: float, num_bins: int = 3) -> None:
        super().__init__(batch_size_per_image=batch_size_per_image, positive_fraction=positive_fraction)
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}")
        self.num_bins = num_bins

    def forward(
        self, matches: Matches, hardness: Callable[[], Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        positive, negative = labelled(matches)
        num_positive, num_negative = self.quota(len(positive), len(negative))
        bins = self._bins(matches.quality[negative])  # [n]
        return (
            draw(positive, num_positive, generator),
            draw_by_group(negative, bins, num_negative, num_negative // self.num_bins, generator),
        )

    def _bins(self, iou: Tensor) -> Tensor:
        """[n] IoU -> [n] int64 in 0..num_bins - 1; the highest IoU belongs to the last bin."""
        highest = torch.cat((iou, iou.new_full((1,), torch.finfo(iou.dtype).tiny))).amax()
        return (iou / highest * self.num_bins).long().clamp(max=self.num_bins - 1)
