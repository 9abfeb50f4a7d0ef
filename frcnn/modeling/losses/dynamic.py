"""The box loss of Dynamic R-CNN (https://arxiv.org/abs/2004.06002), which gets stricter during training."""

from __future__ import annotations

import torch
from torch import Tensor

from frcnn.modeling.losses.options import not_negative
from frcnn.modeling.roles import BOX_LOSSES, BoxLoss
from frcnn.ops.boxes import BoxCoder


@BOX_LOSSES.register
class DynamicSmoothL1Loss(BoxLoss):
    """Smooth L1 whose beta `DynamicROIHeads` lowers as the proposals get better; it travels in checkpoints.

    In other ROI heads nothing moves it.

    Args:
        initial_beta: where the quadratic part ends at the start, in the units of the deltas; beta never grows above it.
        loss_weight: factor of this loss.
    """

    beta: Tensor

    def __init__(self, *, initial_beta: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not initial_beta > 0:
            raise ValueError(f"initial_beta must be above 0, got {initial_beta}")
        self.initial_beta = initial_beta
        self.loss_weight = not_negative(loss_weight)
        self.register_buffer("beta", torch.tensor(initial_beta))

    def forward(self, box_coder: BoxCoder, boxes: Tensor, pred_deltas: Tensor, gt_boxes: Tensor) -> Tensor:
        beta = self.beta.clone()  # the backward pass needs it as it is now, and an update may come first
        error = (pred_deltas.float() - box_coder.encode(boxes, gt_boxes)).abs()  # [n, 4]
        return torch.where(error < beta, 0.5 * error.square() / beta, error - 0.5 * beta).sum(dim=-1)
