"""Losses of box regression and of classification, as components. None applies its own weight: the parent does."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from frcnn.modeling.roles import BOX_LOSSES, CLASS_LOSSES, BoxLoss, ClassLoss
from frcnn.ops.boxes import BoxCoder, paired_iou
from frcnn.ops.losses import one_vs_rest, smooth_l1


@BOX_LOSSES.register
class L1Loss(BoxLoss):
    """Absolute difference of the deltas, summed over the four.

    Args:
        loss_weight: factor of this loss.
    """

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = _not_negative(loss_weight)

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
        self.loss_weight = _not_negative(loss_weight)

    def forward(self, box_coder: BoxCoder, boxes: Tensor, pred_deltas: Tensor, gt_boxes: Tensor) -> Tensor:
        return smooth_l1(pred_deltas, box_coder.encode(boxes, gt_boxes), self.beta)


class _OverlapLoss(BoxLoss):
    """Compares decoded boxes with the ground truth, and not the deltas."""

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = _not_negative(loss_weight)

    def overlap_loss(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        """[n, 4], [n, 4] -> [n]."""
        raise NotImplementedError

    def forward(self, box_coder: BoxCoder, boxes: Tensor, pred_deltas: Tensor, gt_boxes: Tensor) -> Tensor:
        return self.overlap_loss(box_coder.decode(boxes, pred_deltas), gt_boxes.float())


@BOX_LOSSES.register
class IoULoss(_OverlapLoss):
    """1 - IoU of the decoded box and the ground truth.

    Args:
        loss_weight: factor of this loss.
    """

    def overlap_loss(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        return 1 - paired_iou(boxes, gt_boxes)


@BOX_LOSSES.register
class GIoULoss(_OverlapLoss):
    """1 - generalised IoU, which also pulls boxes that do not overlap (https://arxiv.org/abs/1902.09630).

    Args:
        loss_weight: factor of this loss; 10 is common, because the loss is at most 2 where four deltas sum to more.
    """

    def overlap_loss(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        return generalized_box_iou_loss(boxes, gt_boxes)


@BOX_LOSSES.register
class DIoULoss(_OverlapLoss):
    """1 - IoU plus the distance of the centres (https://arxiv.org/abs/1911.08287).

    Args:
        loss_weight: factor of this loss.
    """

    def overlap_loss(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        return distance_box_iou_loss(boxes, gt_boxes)


@BOX_LOSSES.register
class CIoULoss(_OverlapLoss):
    """1 - IoU plus the distance of the centres and the difference of the aspect ratios (https://arxiv.org/abs/1911.08287).

    Args:
        loss_weight: factor of this loss.
    """

    def overlap_loss(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        return complete_box_iou_loss(boxes, gt_boxes)


@CLASS_LOSSES.register
class SoftmaxCrossEntropy(ClassLoss):
    """One softmax over all classes and background, which is the last logit.

    Args:
        num_classes: K, without background.
        loss_weight: factor of this loss.
    """

    def __init__(self, num_classes: int, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.num_logits = num_classes + 1
        self.loss_weight = _not_negative(loss_weight)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), classes, reduction="none")

    def scores(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(dim=-1)[..., :-1]


@CLASS_LOSSES.register
class BinaryCrossEntropy(ClassLoss):
    """An independent sigmoid for each class, summed over the classes; background is all zeros.

    With one class it is the objectness loss of a region proposal network.

    Args:
        num_classes: K, without background.
        loss_weight: factor of this loss.
    """

    def __init__(self, num_classes: int, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.num_logits = num_classes
        self.loss_weight = _not_negative(loss_weight)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        targets = one_vs_rest(classes, self.num_logits)  # [n, K]
        return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").sum(dim=-1)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid()


@CLASS_LOSSES.register
class SigmoidFocalLoss(ClassLoss):
    """Binary cross entropy that counts well-known examples less (https://arxiv.org/abs/1708.02002).

    Args:
        num_classes: K, without background.
        alpha: weight of the objects; everything else has 1 - alpha.
        gamma: how quickly well-known examples fade; 0 is binary cross entropy.
        loss_weight: factor of this loss.
    """

    def __init__(self, num_classes: int, *, alpha: float = 0.25, gamma: float = 2.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}")
        if gamma < 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        self.num_logits = num_classes
        self.alpha = alpha
        self.gamma = gamma
        self.loss_weight = _not_negative(loss_weight)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        targets = one_vs_rest(classes, self.num_logits)  # [n, K]
        return sigmoid_focal_loss(logits.float(), targets, self.alpha, self.gamma).sum(dim=-1)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid()


def _not_negative(loss_weight: float) -> float:
    if loss_weight < 0:
        raise ValueError(f"loss_weight must be at least 0, got {loss_weight}")
    return loss_weight
