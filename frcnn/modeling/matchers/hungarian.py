"""The Hungarian matcher: exactly one candidate for every ground truth."""

from __future__ import annotations

import torch
from torch import Tensor

from frcnn.errors import UserError
from frcnn.modeling.matchers.claims import predictions_of
from frcnn.modeling.roles import MATCHERS, Matcher
from frcnn.ops.boxes import box_giou, paired_iou
from frcnn.structures import POSITIVE_LABEL, Candidates, Matches, Predictions, Targets


@MATCHERS.register
class HungarianMatcher(Matcher):
    """One candidate for each ground truth, so that the sum of the costs is least (DETR, https://arxiv.org/abs/2005.12872).

    A pair costs minus the score of the class, the L1 distance of the predicted box, its sides counted in parts of the
    image, and minus its GIoU. All other candidates are negative. The assignment is solved on the CPU; it is meant for
    some hundred candidates (Sparse R-CNN, the ROI heads), not for every anchor of an image.

    Args:
        class_weight: factor of the score.
        l1_weight: factor of the distance.
        giou_weight: factor of the GIoU.
    """

    def __init__(self, *, class_weight: float = 1.0, l1_weight: float = 5.0, giou_weight: float = 2.0) -> None:
        super().__init__()
        weights = {"class_weight": class_weight, "l1_weight": l1_weight, "giou_weight": giou_weight}
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"{name} must be at least 0, got {weight}")
        if not any(weights.values()):
            raise ValueError("class_weight, l1_weight and giou_weight are all 0: every assignment would cost the same")
        self.class_weight = class_weight
        self.l1_weight = l1_weight
        self.giou_weight = giou_weight

    def forward(self, candidates: Candidates, targets: Targets) -> Matches:
        predictions = predictions_of(candidates)
        gt_boxes = targets.boxes.float()  # [G, 4]
        gt, candidate = least_cost_pairs(self.cost(candidates, predictions, targets))
        labels = torch.zeros(len(predictions.boxes), dtype=torch.int64, device=gt_boxes.device)
        gt_index = torch.zeros_like(labels)
        quality = torch.zeros_like(labels, dtype=torch.float32)
        labels[candidate] = POSITIVE_LABEL
        gt_index[candidate] = gt
        quality[candidate] = paired_iou(predictions.boxes[candidate], gt_boxes[gt])
        return Matches(gt_index=gt_index, labels=labels, quality=quality)

    def cost(self, candidates: Candidates, predictions: Predictions, targets: Targets) -> Tensor:
        """[G, N], what each pair costs."""
        if candidates.image_size is None:
            raise ValueError("HungarianMatcher measures in parts of the image, but the candidates have no image_size")
        height, width = candidates.image_size
        gt_boxes, boxes = targets.boxes.float(), predictions.boxes.float()  # [G, 4], [N, 4]
        scores = predictions.scores.float()[:, targets.classes].T  # [G, N]
        sides = boxes.new_tensor([width, height, width, height])
        distance = torch.cdist(gt_boxes / sides, boxes / sides, p=1)  # [G, N]
        giou = box_giou(gt_boxes, boxes)  # [G, N]
        return self.l1_weight * distance - self.class_weight * scores - self.giou_weight * giou


def least_cost_pairs(cost: Tensor) -> tuple[Tensor, Tensor]:
    """The one-to-one assignment with the least sum of costs.

    Args:
        cost: [G, N].

    Returns:
        rows and columns [min(G, N)] of the assigned pairs, on the device of `cost`.

    Raises:
        UserError: a cost is not finite.
    """
    from scipy.optimize import linear_sum_assignment  # half a second that only this matcher is worth

    broken = int((~cost.isfinite()).sum())
    if broken:
        raise UserError(
            f"HungarianMatcher: {broken} of {cost.numel()} costs are NaN or infinite, so what the model predicts is no "
            "longer a number; lower the learning rate, or set trainer.clip_grad_norm"
        )
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(rows, device=cost.device), torch.as_tensor(columns, device=cost.device)
