"""Non-maximum suppression as a component."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from frcnn.modeling import roles
from frcnn.ops.nms import nms_per_class, soft_nms_per_class


@roles.NMS_METHODS.register
class NMS(roles.NMS):
    """Greedy non-maximum suppression: a box goes if it overlaps a better one of its class.

    Args:
        iou_threshold: the largest IoU with a better box that is let through.
        class_agnostic: whether a better box of any class (in a proposal generator: of any level) suppresses.
    """

    def __init__(self, *, iou_threshold: float, class_agnostic: bool = False) -> None:
        super().__init__()
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}")
        self.iou_threshold = iou_threshold
        self.class_agnostic = class_agnostic

    def forward(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        groups = torch.zeros_like(classes) if self.class_agnostic else classes
        index = nms_per_class(boxes, scores, groups, self.iou_threshold)  # [k]
        return index, scores[index]


@roles.NMS_METHODS.register
class SoftNMS(roles.NMS):
    """Lowers the score of a box that overlaps a better one of its class, instead of dropping it (https://arxiv.org/abs/1704.04503).

    A region proposal network with it needs `nms_on: probability`.

    Args:
        method: linear multiplies by 1 - IoU above the threshold; gaussian by exp(-IoU^2 / sigma) everywhere.
        iou_threshold: the largest IoU with a better box that costs nothing; only of linear.
        sigma: how far the loss of score reaches; only of gaussian.
        min_score: boxes whose score falls below are dropped.
        class_agnostic: whether a better box of any class (in a proposal generator: of any level) takes score away.
    """

    needs_probabilities = True

    def __init__(
        self,
        *,
        method: Literal["linear", "gaussian"] = "gaussian",
        iou_threshold: float = 0.3,
        sigma: float = 0.5,
        min_score: float = 0.001,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}")
        if sigma <= 0:
            raise ValueError(f"sigma must be above 0, got {sigma}")
        if not 0 < min_score <= 1:
            raise ValueError(f"min_score must be in (0, 1], got {min_score}")
        self.method = method
        self.iou_threshold = iou_threshold
        self.sigma = sigma
        self.min_score = min_score
        self.class_agnostic = class_agnostic

    def forward(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        groups = torch.zeros_like(classes) if self.class_agnostic else classes
        return soft_nms_per_class(boxes, scores, groups, self.decay, self.min_score)

    def decay(self, iou: Tensor) -> Tensor:
        """What the score of a box is multiplied by: [...] IoU with a better one -> [...] in 0..1."""
        if self.method == "gaussian":
            return torch.exp(-iou.square() / self.sigma)
        return torch.where(iou > self.iou_threshold, 1 - iou, 1.0)
