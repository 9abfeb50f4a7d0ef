"""Positives by the place of their centre: the matcher of anchors that no size or ratio was chosen for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from frcnn.modeling.matchers.claims import Claims, gt_chunks, highest_claim_wins
from frcnn.modeling.roles import MATCHERS, Matcher
from frcnn.ops.boxes import box_area, box_centers, paired_iou
from frcnn.structures import DISCARD_LABEL, POSITIVE_LABEL, Candidates, Matches, Targets


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
        boxes, gt_boxes = candidates.boxes.float(), targets.boxes.float()  # [N, 4], [G, 4]
        level_of_gt = _best_levels(candidates, gt_boxes)  # [G]
        ignored = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        pairs = [torch.zeros(0, 2, dtype=torch.int64, device=boxes.device)]
        first = 0
        for level, level_boxes in enumerate(candidates.boxes_per_level):
            if not len(level_boxes):
                continue
            here = slice(first, first + len(level_boxes))
            gts = torch.nonzero(level_of_gt == level).squeeze(1)  # [g]
            for start, some in gt_chunks(gt_boxes[gts], len(level_boxes)):
                positive, near = self._around_centers(level_boxes.float(), some)  # [g', N_l] each
                ignored[here] |= near.any(dim=0)
                place, candidate = torch.nonzero(positive, as_tuple=True)
                pairs.append(torch.stack((gts[place + start], candidate + first), dim=1))
            first += len(level_boxes)
        gt, candidate = torch.cat(pairs).unbind(dim=1)  # [n] each
        overlap = paired_iou(boxes[candidate], gt_boxes[gt])
        claims = Claims(gt, candidate, -box_area(gt_boxes[gt]), overlap)
        matches = highest_claim_wins(claims, len(boxes), len(gt_boxes))
        left_out = ignored & (matches.labels != POSITIVE_LABEL)
        return replace(matches, labels=torch.where(left_out, DISCARD_LABEL, matches.labels))

    def _around_centers(self, boxes: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
        """[g, N_l] bool each: which candidates of a level are positives of a ground truth, and which are near them."""
        away = (box_centers(boxes) - box_centers(gt_boxes)[:, None]).abs()  # [g, N_l, 2]
        half = (gt_boxes[:, None, 2:] - gt_boxes[:, None, :2]) / 2  # [g, 1, 2]
        positive = (away < self.center_ratio * half).all(dim=-1)
        closest = away.square().sum(dim=-1).argmin(dim=1, keepdim=True)  # [g, 1]
        return positive.scatter(1, closest, True), (away < self.ignore_ratio * half).all(dim=-1)


def _best_levels(candidates: Candidates, gt_boxes: Tensor) -> Tensor:
    """[G]: the level whose first candidate has an area most like the ground truth's; empty levels are left out."""
    log_areas = [
        box_area(level[0]).log() if len(level) else gt_boxes.new_tensor(torch.inf)
        for level in candidates.boxes_per_level
    ]
    distance = (box_area(gt_boxes).clamp(min=1e-6).log()[:, None] - torch.stack(log_areas)).abs()  # [G, L]
    return distance.argmin(dim=1)
