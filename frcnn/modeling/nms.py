"""Non-maximum suppression as a component."""

from __future__ import annotations

from torch import Tensor

from frcnn.modeling import roles
from frcnn.ops.nms import nms_per_class


@roles.NMS_METHODS.register
class NMS(roles.NMS):
    """Greedy non-maximum suppression: a box goes if it overlaps a better one of its class.

    Args:
        iou_threshold: the largest IoU with a better box that is let through.
    """

    def __init__(self, *, iou_threshold: float) -> None:
        super().__init__()
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1], got {iou_threshold}")
        self.iou_threshold = iou_threshold

    def forward(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        index = nms_per_class(boxes, scores, classes, self.iou_threshold)  # [k]
        return index, scores[index]
