"""Matchers: which ground truth each candidate box stands for, and whether it counts as a positive or a negative."""

from __future__ import annotations

import torch
from torch import Tensor

from frcnn.modeling.roles import MATCHERS, Matcher
from frcnn.ops.boxes import iou_chunks, paired_iou
from frcnn.structures import BACKGROUND_LABEL, DISCARD_LABEL, POSITIVE_LABEL, Candidates, Matches, Targets

DISTANCE_CHUNK_ELEMENTS = 2**22


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

    def forward(self, candidates: Candidates, targets: Targets) -> Matches:
        boxes = candidates.boxes  # [N, 4]
        quality = torch.zeros(len(boxes), dtype=torch.float32, device=boxes.device)
        gt_index = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        best_of_a_gt = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        for first, iou in iou_chunks(targets.boxes, boxes):  # [g, N]
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


@MATCHERS.register
class ATSSMatcher(Matcher):
    """Adaptive training sample selection (https://arxiv.org/abs/1912.02424): each ground truth has its own threshold.

    On every level the candidates whose centres are closest to that of the ground truth are looked at; among all of
    these, those are positive whose IoU is at least the mean plus the standard deviation, and whose centre lies inside
    the ground truth. All other candidates are negative. A candidate claimed by several ground truths goes to the one
    it overlaps most.

    Args:
        candidates_per_level: how many closest candidates of each level are looked at.
    """

    def __init__(self, *, candidates_per_level: int = 9) -> None:
        super().__init__()
        if candidates_per_level < 1:
            raise ValueError(f"candidates_per_level must be at least 1, got {candidates_per_level}")
        self.candidates_per_level = candidates_per_level

    def forward(self, candidates: Candidates, targets: Targets) -> Matches:
        boxes, gt_boxes = candidates.boxes.float(), targets.boxes.float()  # [N, 4], [G, 4]
        closest = self._closest(candidates, gt_boxes)  # [G, M]
        iou = paired_iou(gt_boxes[:, None], boxes[closest])  # [G, M]
        mean = iou.mean(dim=1)  # [G]
        variance = (iou - mean[:, None]).square().sum(dim=1) / max(1, iou.shape[1] - 1)
        threshold = mean + variance.sqrt()
        inside = _inside(_centers(boxes)[closest], gt_boxes[:, None])  # [G, M]
        positive = (iou >= threshold[:, None]) & inside & (iou > 0)
        gt, place = torch.nonzero(positive, as_tuple=True)  # [n] pairs of a ground truth and a candidate
        return _highest_wins(gt, closest[gt, place], iou[gt, place], len(boxes), len(gt_boxes))

    def _closest(self, candidates: Candidates, gt_boxes: Tensor) -> Tensor:
        """[G, M] indices of the candidates closest to each ground truth, level after level."""
        first = 0
        index_per_level = []
        for level_boxes in candidates.boxes_per_level:
            count = min(self.candidates_per_level, len(level_boxes))
            index_per_level.append(_closest_of_level(level_boxes.float(), gt_boxes, count) + first)
            first += len(level_boxes)
        return torch.cat(index_per_level, dim=1)


def _closest_of_level(boxes: Tensor, gt_boxes: Tensor, count: int) -> Tensor:
    """[G, count]: the boxes whose centres are closest to each ground truth's, in chunks of bounded memory."""
    x, y = _centers(boxes).unbind(-1)  # [N_l] each
    gt_x, gt_y = _centers(gt_boxes)[:, None].unbind(-1)  # [G, 1] each
    step = max(1, DISTANCE_CHUNK_ELEMENTS // max(1, len(boxes)))
    # One tensor for all chunks: small results kept between large temporaries would scatter the heap over gigabytes.
    closest = torch.empty((len(gt_boxes), count), dtype=torch.int64, device=boxes.device)
    for first in range(0, len(gt_boxes), step):
        chunk = slice(first, first + step)
        distance = (gt_x[chunk] - x).square() + (gt_y[chunk] - y).square()  # [g, N_l], squared
        closest[chunk] = distance.topk(count, largest=False).indices
    return closest


def _highest_wins(gt: Tensor, candidate: Tensor, iou: Tensor, num_candidates: int, num_gts: int) -> Matches:
    """Each claimed candidate is a positive of the ground truth with the highest IoU; of equal ones, of the first.

    Args:
        gt: [n] which ground truth claims.
        candidate: [n] which candidate it claims.
        iou: [n] above 0.
    """
    quality = iou.new_zeros(num_candidates).scatter_reduce(0, candidate, iou, "amax")
    winner = iou == quality[candidate]
    none = gt.new_full((num_candidates,), num_gts)
    gt_index = none.scatter_reduce(0, candidate[winner], gt[winner], "amin")
    labels = torch.where(gt_index < num_gts, POSITIVE_LABEL, BACKGROUND_LABEL)
    return Matches(gt_index=torch.where(gt_index < num_gts, gt_index, 0), labels=labels, quality=quality)


def _centers(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    return ((points > boxes[..., :2]) & (points < boxes[..., 2:])).all(dim=-1)
