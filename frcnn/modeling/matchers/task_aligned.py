"""Task alignment: the candidates that both score well and lie well."""

from __future__ import annotations

import torch

from frcnn.modeling.matchers.claims import Ranking, best_claims, highest_claim_wins, predictions_of
from frcnn.modeling.roles import MATCHERS, Matcher
from frcnn.ops.boxes import box_centers, box_iou, points_inside
from frcnn.structures import Candidates, Matches, Targets


@MATCHERS.register
class TaskAlignedMatcher(Matcher):
    """The assignment of TOOD (https://arxiv.org/abs/2108.07755, section 3.2.1): the best by score^alpha IoU^beta.

    Scores and boxes are what the model now predicts. Only candidates centred inside a ground truth are looked at; one
    that several claim goes to the ground truth that its predicted box overlaps most. All others are negative. The
    alignment is used to choose, not to weigh the loss.

    Args:
        alpha: exponent of the score of the ground truth's class.
        beta: exponent of the IoU of the predicted box.
        max_positives: how many candidates each ground truth claims.
    """

    def __init__(self, *, alpha: float = 1.0, beta: float = 6.0, max_positives: int = 13) -> None:
        super().__init__()
        if alpha < 0 or beta < 0:
            raise ValueError(f"alpha and beta must be at least 0, got {alpha} and {beta}")
        if max_positives < 1:
            raise ValueError(f"max_positives must be at least 1, got {max_positives}")
        self.alpha = alpha
        self.beta = beta
        self.max_positives = max_positives

    def forward(self, candidates: Candidates, targets: Targets) -> Matches:
        boxes, gt_boxes = candidates.boxes.float(), targets.boxes.float()  # [N, 4], [G, 4]
        predictions = predictions_of(candidates)
        centers, scores = box_centers(boxes), predictions.scores.float()  # [N, 2], [N, K]

        def rank(chunk: slice) -> Ranking:
            iou = box_iou(gt_boxes[chunk], predictions.boxes)  # [g, N]
            alignment = scores[:, targets.classes[chunk]].T ** self.alpha * iou**self.beta  # [g, N]
            inside = points_inside(centers, gt_boxes[chunk, None])
            limit = torch.full((len(iou),), self.max_positives, device=iou.device)
            return Ranking(alignment.where(inside & (alignment > 0), -torch.inf), iou, limit)

        claims = best_claims(rank, len(gt_boxes), len(boxes), self.max_positives, boxes.device)
        return highest_claim_wins(claims._replace(value=claims.iou), len(boxes), len(gt_boxes))
