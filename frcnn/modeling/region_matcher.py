"""Positives by the place of their centre: the matcher of anchors that no size or ratio was chosen for."""

from __future__ import annotations

import torch
from torch import Tensor

from frcnn.modeling.roles import MATCHERS, Matcher
from frcnn.ops.boxes import box_area, paired_iou
from frcnn.structures import BACKGROUND_LABEL, DISCARD_LABEL, POSITIVE_LABEL, Candidates, Matches, Targets


@MATCHERS.register
class RegionMatcher(Matcher):
    """Makes positive what lies in the middle of a ground truth, on the level whose anchors are most like it in size.

    Region proposal by guided anchoring, section 3.3 (https://arxiv.org/abs/1901.03278), as the first stage of Cascade RPN
    uses it. On a ground truth's level the candidate whose centre is closest to its own is positive too, so that no object
    falls between the candidates. A candidate claimed by several ground truths goes to the smallest.

    Args:
        center_ratio: side of the middle part, in sides of the ground truth; candidates with a centre inside are positive.
        ignore_ratio: the same of a larger part, in which candidates that are not positive are discarded.
    """

    def __init__(self, *, center_ratio: float = 0.2, ignore_ratio: float = 0.5) -> None:
        super().__init__()
        if not 0 < center_ratio <= ignore_ratio <= 1:
            raise ValueError(
                "ratios must satisfy 0 < center_ratio <= ignore_ratio <= 1, "
                f"got center_ratio {center_ratio} and ignore_ratio {ignore_ratio}"
            )
        self.center_ratio = center_ratio
        self.ignore_ratio = ignore_ratio

    def forward(self, candidates: Candidates, targets: Targets) -> Matches:
        boxes = candidates.boxes.float()  # [N, 4]
        labels = torch.full((len(boxes),), BACKGROUND_LABEL, dtype=torch.int64, device=boxes.device)
        gt_index = torch.zeros_like(labels)
        first = 0
        level_of_gt = _best_levels(candidates, targets.boxes)  # [G]
        for level, level_boxes in enumerate(candidates.boxes_per_level):
            if not len(level_boxes):
                continue
            here = slice(first, first + len(level_boxes))
            gts = torch.nonzero(level_of_gt == level).squeeze(1)  # [g]
            labels[here], gt_index[here] = self._match_level(level_boxes.float(), targets.boxes.float(), gts)
            first += len(level_boxes)
        quality = boxes.new_zeros(len(boxes))
        if len(targets):
            overlap = paired_iou(boxes, targets.boxes[gt_index])  # [N]
            quality = torch.where(labels == POSITIVE_LABEL, overlap, quality)
        return Matches(gt_index=gt_index, labels=labels, quality=quality)

    def _match_level(self, boxes: Tensor, gt_boxes: Tensor, gts: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and ground truths [N_l] of the candidates of one level; larger ground truths are overwritten."""
        labels = torch.full((len(boxes),), BACKGROUND_LABEL, dtype=torch.int64, device=boxes.device)
        gt_index = torch.zeros_like(labels)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2  # [N_l, 2]
        largest_first = gts[box_area(gt_boxes[gts]).argsort(descending=True, stable=True)]
        positives = []
        for gt in largest_first.tolist():
            x1, y1, x2, y2 = gt_boxes[gt].unbind()
            away = (centers - torch.stack((x1 + x2, y1 + y2)) / 2).abs()  # [N_l, 2]
            half = torch.stack((x2 - x1, y2 - y1)) / 2
            positive = (away < self.center_ratio * half).all(dim=1)
            positive[away.square().sum(dim=1).argmin()] = True
            labels[(away < self.ignore_ratio * half).all(dim=1)] = DISCARD_LABEL
            positives.append((gt, positive))
        for gt, positive in positives:
            labels[positive] = POSITIVE_LABEL
            gt_index[positive] = gt
        return labels, gt_index


def _best_levels(candidates: Candidates, gt_boxes: Tensor) -> Tensor:
    """[G]: the level whose first candidate has an area most like the ground truth's; empty levels are left out."""
    log_areas = [
        box_area(level[0]).log() if len(level) else gt_boxes.new_tensor(torch.inf)
        for level in candidates.boxes_per_level
    ]
    distance = (box_area(gt_boxes).clamp(min=1e-6).log()[:, None] - torch.stack(log_areas)).abs()  # [G, L]
    return distance.argmin(dim=1)
