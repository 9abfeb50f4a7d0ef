"""Losses of box regression that compare deltas."""

from __future__ import annotations

from torch import Tensor

from frcnn.modeling.losses.options import not_negative
from frcnn.modeling.roles import BOX_LOSSES, BoxLoss
from frcnn.ops.boxes import BoxCoder
from frcnn.ops.losses import balanced_l1, smooth_l1


@BOX_LOSSES.register
class L1Loss(BoxLoss):
    """Absolute difference of the deltas, summed over the four.

    Args:
        loss_weight: factor of this loss.
    """

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = not_negative(loss_weight)

    def forward(self, box_coder: BoxCoder, boxes: Tensor, pred_deltas: Tensor, gt_boxes: Tensor) -> Tensor:
        return smooth_l1(pred_deltas, box_coder.encode(boxes, gt_boxes), beta=0.0)


@BOX_LOSSES.register
class SmoothL1Loss(BoxLoss):
    """Difference of the deltas, quadratic where it is small (Fast R-CNN, section 2.3), summed over the four.

    Args:
        beta: where the quadratic part ends, in the units of the deltas; torchvision has 1/9.
        loss_weight: factor of this loss.
    """

    def __init__(self, *, beta: float, loss_weight: float = 1.0) -> None:
        super().__init__()
        if beta < 0:
            raise ValueError(f"beta must be at least 0, got {beta}")
        self.beta = beta
        self.loss_weight = not_negative(loss_weight)

    def forward(self, box_coder: BoxCoder, boxes: Tensor, pred_deltas: Tensor, gt_boxes: Tensor) -> Tensor:
        return smooth_l1(pred_deltas, box_coder.encode(boxes, gt_boxes), self.beta)


@BOX_LOSSES.register
class BalancedL1Loss(BoxLoss):
    """Difference of the deltas with a larger gradient where it is small (Libra R-CNN, https://arxiv.org/abs/1904.02701).

    Summed over the four.

    Args:
        alpha: how much the gradient of small differences is raised: the smaller, the more.
        gamma: gradient of large differences.
        beta: where large differences begin, in the units of the deltas.
        loss_weight: factor of this loss.
    """

    def __init__(self, *, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if min(alpha, gamma, beta) <= 0:
            raise ValueError(f"alpha, gamma and beta must be above 0, got {alpha}, {gamma} and {beta}")
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta
        self.loss_weight = not_negative(loss_weight)

    def forward(self, box_coder: BoxCoder, boxes: Tensor, pred_deltas: Tensor, gt_boxes: Tensor) -> Tensor:
        return balanced_l1(pred_deltas, box_coder.encode(boxes, gt_boxes), self.alpha, self.gamma, self.beta)
