"""What a matcher is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUND_LABEL, DISCARD_LABEL, POSITIVE_LABEL = 0, -1, 1


@dataclass(frozen=True)
class Predictions:
    """What the model now says of the candidates of one image, without gradient.

    Args:
        logits: [N, number of logits of the class loss].
        boxes: [N, 4] decoded boxes (of a class-specific predictor: for each candidate's best class).
        scores: [N, K] in 0..1, what the class loss makes of the logits; K is 1 in a proposal generator.
    """

    logits: Tensor
    boxes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Candidates:
    """What a matcher may look at: the candidates of one image, and on demand what the model says of them.

    Args:
        boxes_per_level: L x [N_l, 4]; candidate order is level, y, x, anchor.
        predictions: computes logits, scores and decoded boxes when called; a matcher that does not call it pays nothing.
        image_size: (h, w) of the image before padding, for what is measured in parts of the image.
    """

    boxes_per_level: Sequence[Tensor]
    predictions: Callable[[], Predictions] | None = None
    image_size: tuple[int, int] | None = None

    @property
    def boxes(self) -> Tensor:  # [N, 4]
        return torch.cat(list(self.boxes_per_level)) if len(self.boxes_per_level) != 1 else self.boxes_per_level[0]


@dataclass(frozen=True)
class Matches:
    """Which ground truth each candidate stands for.

    Args:
        gt_index: [N] int64, the ground truth of each candidate (0 where there is none).
        labels: [N] int64 in {-1 discard, 0 negative, 1 positive}.
        quality: [N] float32, the IoU (or the matcher's own measure) with that ground truth.
    """

    gt_index: Tensor
    labels: Tensor
    quality: Tensor

    @property
    def matched_idxs(self) -> Tensor:
        """[N]: index of the ground truth where positive, -1 where between the thresholds, -2 where below the low one."""
        below = torch.where(self.labels == DISCARD_LABEL, -1, -2)
        return torch.where(self.labels == POSITIVE_LABEL, self.gt_index, below)
