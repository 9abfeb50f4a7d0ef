"""Non-maximum suppression over several classes or levels at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms


def nms_per_class(boxes: Tensor, scores: Tensor, classes: Tensor, iou_threshold: float) -> Tensor:
    """Drops every box that overlaps a better one of its class.

    Args:
        boxes: [n, 4].
        scores: [n].
        classes: [n] int64; boxes of different classes do not touch each other.
        iou_threshold: the largest IoU with a better box that is let through.

    Returns:
        [k] indices of the boxes that are left, best first.
    """
    boxes, scores = boxes.float(), scores.float()
    if not torch.compiler.is_compiling():
        return batched_nms(boxes, scores, classes, iou_threshold)
    # batched_nms chooses its algorithm by the number of boxes, which is unknown while a graph is exported. The exported
    # graph always moves each class to a place of its own. It also takes for granted that nms returns two boxes or more:
    # two that nothing overlaps and everything outranks come back last, and are left out again.
    coordinates = torch.cat((boxes.flatten(), boxes.new_zeros(1)))  # the 0 is for no box at all
    moved = boxes + (classes * (coordinates.max() + 1))[:, None]
    outside = boxes.new_tensor([[-2.0, -2.0, -1.0, -1.0], [-4.0, -4.0, -3.0, -3.0]]) + coordinates.min()  # [2, 4]
    outranked = torch.cat((scores, scores.new_full((2,), -torch.inf)))
    return nms(torch.cat((moved, outside)), outranked, iou_threshold)[:-2]
