"""The matcher of Faster R-CNN: two thresholds on the IoU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from frcnn.modeling.roles import MATCHERS, Matcher
from frcnn.ops.boxes import iou_chunks
from frcnn.structures import BACKGROUND_LABEL, DISCARD_LABEL, POSITIVE_LABEL, Candidates, Matches, Targets


@MATCHERS.register
class IoUMatcher(Matcher):
    """Matches each candidate with the ground truth it overlaps most, and labels it by two thresholds on that IoU.

    A candidate at `high_threshold` or above is positive, one below `low_threshold` negative, the others are discarded.

    Args:
        high_threshold: IoU from which a candidate is positive.
        low_threshold: IoU below which a candidate is negative.
        allow_low_quality_matches: make the best candidates of every ground truth positive too (all that tie), whatever
            their IoU is above 0. Such a candidate stays with the ground truth it overlaps most.
    """

    def __init__(self, *, high_threshold: float, low_threshold: float, allow_low_quality_matches: bool = False) -> None:
        super().__init__()
        if not 0 < low_threshold <= high_threshold <= 1:
            raise ValueError(
                "thresholds must satisfy 0 < low_threshold <= high_threshold <= 1, "
                f"got low_threshold {low_threshold} and high_threshold {high_threshold}"
            )
        self.high_threshold = high_threshold
        self.low_threshold = low_threshold
        self.allow_low_quality_matches = allow_low_quality_matches

    def overlaps(self, gt_boxes: Tensor, boxes: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The overlap of ground truths [G, 4] and candidates [N, 4] that the thresholds are about; see `iou_chunks`."""
        return iou_chunks(gt_boxes, boxes)

    def forward(self, candidates: Candidates, targets: Targets) -> Matches:
        boxes = candidates.boxes  # [N, 4]
        quality = torch.zeros(len(boxes), dtype=torch.float32, device=boxes.device)
        gt_index = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        best_of_a_gt = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        for first, iou in self.overlaps(targets.boxes, boxes):  # [g, N]
            best_iou, best_gt = iou.max(dim=0)
            better = best_iou > quality
            quality = torch.where(better, best_iou, quality)
            gt_index = torch.where(better, best_gt + first, gt_index)
            if self.allow_low_quality_matches and len(boxes):
                highest = iou.amax(dim=1, keepdim=True)  # [g, 1]
                best_of_a_gt |= ((iou == highest) & (highest > 0)).any(dim=0)
        labels = torch.full_like(gt_index, DISCARD_LABEL)
        labels[quality < self.low_threshold] = BACKGROUND_LABEL
        labels[(quality >= self.high_threshold) | best_of_a_gt] = POSITIVE_LABEL
        return Matches(gt_index=gt_index, labels=labels, quality=quality)
