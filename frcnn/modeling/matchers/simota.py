"""SimOTA: as many positives as the predictions deserve, the cheapest ones."""

from __future__ import annotations

import torch
from torch import Tensor

from frcnn.modeling.matchers.claims import Ranking, best_claims, highest_claim_wins, predictions_of
from frcnn.modeling.roles import MATCHERS, Matcher
from frcnn.ops.boxes import box_area, box_centers, box_iou, points_inside
from frcnn.structures import Candidates, Matches, Targets

OUTSIDE_COST = 1e3  # more than costs differ; 1e5, as elsewhere, would leave a float32 two digits behind the point
EPS = 1e-6


@MATCHERS.register
class SimOTAMatcher(Matcher):
    """The assignment of YOLOX (https://arxiv.org/abs/2107.08430, section 2.1), after OTA (https://arxiv.org/abs/2103.14259).

    A pair costs its classification loss plus `iou_weight` times -log IoU, both of what the model now predicts. Pairs whose
    candidate is centred outside the ground truth, or far from its centre, come after all others. Each ground truth claims
    its k cheapest candidates, k being the sum of its highest IoUs; a candidate claimed by several goes to the cheapest
    claim. All others are negative. A pair that is neither close nor overlaps is never claimed.

    Args:
        class_weight: factor of the classification cost.
        iou_weight: factor of the IoU cost.
        center_radius: how far apart the centres of a close pair may be in x and in y, in sides (square root of the area)
            of the candidate. The paper has 2.5 strides; anchors here are 4 to 8 strides wide.
        max_positives: how many of the highest IoUs are summed, and so the most positives of one ground truth.
    """

    def __init__(
        self,
        *,
        class_weight: float = 1.0,
        iou_weight: float = 3.0,
        center_radius: float = 0.5,
        max_positives: int = 10,
    ) -> None:
        super().__init__()
        if class_weight < 0 or iou_weight < 0:
            raise ValueError(f"class_weight and iou_weight must be at least 0, got {class_weight} and {iou_weight}")
        if center_radius <= 0:
            raise ValueError(f"center_radius must be above 0, got {center_radius}")
        if max_positives < 1:
            raise ValueError(f"max_positives must be at least 1, got {max_positives}")
        self.class_weight = class_weight
        self.iou_weight = iou_weight
        self.center_radius = center_radius
        self.max_positives = max_positives

    def forward(self, candidates: Candidates, targets: Targets) -> Matches:
        boxes, gt_boxes = candidates.boxes.float(), targets.boxes.float()  # [N, 4], [G, 4]
        predictions = predictions_of(candidates)
        class_cost = ClassificationCost(predictions.scores)

        def rank(chunk: slice) -> Ranking:
            iou = box_iou(gt_boxes[chunk], predictions.boxes)  # [g, N]
            close = self._close(boxes, gt_boxes[chunk])  # [g, N]
            cost = self.class_weight * class_cost.of(targets.classes[chunk])
            cost = cost - self.iou_weight * torch.log(iou + EPS) + OUTSIDE_COST * ~close
            limit = iou.topk(min(self.max_positives, len(boxes))).values.sum(dim=1).long().clamp(min=1)  # [g]
            return Ranking((-cost).where(close | (iou > 0), -torch.inf), iou, limit)

        claims = best_claims(rank, len(gt_boxes), len(boxes), self.max_positives, boxes.device)
        return highest_claim_wins(claims, len(boxes), len(gt_boxes))

    def _close(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        """[g, N]: whether a candidate is centred inside the ground truth, and near its centre."""
        centers, gt_centers = box_centers(boxes), box_centers(gt_boxes)[:, None]  # [N, 2], [g, 1, 2]
        reach = self.center_radius * box_area(boxes).clamp(min=0).sqrt()  # [N]
        near = (centers - gt_centers).abs().amax(dim=-1) < reach
        return near & points_inside(centers, gt_boxes[:, None])


class ClassificationCost:
    """Binary cross entropy of each candidate's scores, were it an object of a given class.

    The sum over all classes is computed once; a class then only exchanges its own term.

    Args:
        scores: [N, K] in 0..1.
    """

    def __init__(self, scores: Tensor) -> None:
        scores = scores.float().clamp(EPS, 1 - EPS)
        if_absent = -torch.log1p(-scores)  # [N, K]
        self.nothing = if_absent.sum(dim=1)  # [N]
        self.difference = -scores.log() - if_absent  # [N, K]

    def of(self, classes: Tensor) -> Tensor:
        """[g] classes -> [g, N]."""
        return self.nothing + self.difference[:, classes].T
