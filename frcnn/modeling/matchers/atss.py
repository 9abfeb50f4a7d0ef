"""ATSS: a threshold of its own for each ground truth, from the candidates closest to it."""

from __future__ import annotations

import torch
from torch import Tensor

from frcnn.modeling.matchers.claims import Claims, highest_claim_wins
from frcnn.modeling.roles import MATCHERS, Matcher
from frcnn.ops.boxes import box_centers, paired_iou, points_inside
from frcnn.structures import Candidates, Matches, Targets

DISTANCE_CHUNK_ELEMENTS = 2**22


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
        inside = points_inside(box_centers(boxes)[closest], gt_boxes[:, None])  # [G, M]
        positive = (iou >= threshold[:, None]) & inside & (iou > 0)
        gt, place = torch.nonzero(positive, as_tuple=True)  # [n] pairs of a ground truth and a candidate
        value = iou[gt, place]
        return highest_claim_wins(Claims(gt, closest[gt, place], value, value), len(boxes), len(gt_boxes))

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
    x, y = box_centers(boxes).unbind(-1)  # [N_l] each
    gt_x, gt_y = box_centers(gt_boxes)[:, None].unbind(-1)  # [G, 1] each
    step = max(1, DISTANCE_CHUNK_ELEMENTS // max(1, len(boxes)))
    # One tensor for all chunks: small results kept between large temporaries would scatter the heap over gigabytes.
    closest = torch.empty((len(gt_boxes), count), dtype=torch.int64, device=boxes.device)
    for first in range(0, len(gt_boxes), step):
        chunk = slice(first, first + step)
        distance = (gt_x[chunk] - x).square() + (gt_y[chunk] - y).square()  # [g, N_l], squared
        closest[chunk] = distance.topk(count, largest=False).indices
    return closest
