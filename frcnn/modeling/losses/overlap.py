"""Losses of box regression that compare the decoded boxes with the ground truth, and not the deltas."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from frcnn.modeling.losses.options import not_negative
from frcnn.modeling.roles import BOX_LOSSES, BoxLoss
from frcnn.ops.boxes import BoxCoder, paired_iou


class _OverlapLoss(BoxLoss):
    """Compares decoded boxes with the ground truth, and not the deltas."""

    box_dim = 4

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = not_negative(loss_weight)

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
