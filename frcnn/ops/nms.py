"""Non-maximum suppression over several classes or levels at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from frcnn.ops.boxes import paired_iou

ASK_EVERY = 32
"""Steps of soft NMS from one question whether it is done to the next: each makes the host wait for the device."""


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


def soft_nms_per_class(
    boxes: Tensor, scores: Tensor, classes: Tensor, decay: Callable[[Tensor], Tensor], min_score: float
) -> tuple[Tensor, Tensor]:
    """Lowers the score of every box that overlaps a better one of its class, best first.

    All classes take their steps together, so there are as many as the largest class has boxes.

    Args:
        boxes: [n, 4].
        scores: [n] in 0..1.
        classes: [n] int64; boxes of different classes do not touch each other.
        decay: from the IoU with a better box to the factor of the score.
        min_score: boxes whose score falls below are dropped; above 0.

    Returns:
        [k] indices of the boxes that are left and their scores [k], best first.
    """
    table = table_of_classes(classes)  # [C, M] index of a box, n where there is none
    padded_boxes = torch.cat((boxes.float(), boxes.new_zeros(1, 4)))[table]  # [C, M, 4]
    left = torch.cat((scores.float(), scores.new_full((1,), -torch.inf)))[table]  # [C, M], what may still be taken
    final = torch.full_like(left, -torch.inf)
    row = torch.arange(len(table), device=boxes.device)
    for step in range(table.shape[1]):
        if step % ASK_EVERY == 0 and not bool((left >= min_score).any()):
            break  # steps beyond that would change nothing
        score, best = left.max(dim=1)  # [C] each
        final[row, best] = torch.where(score >= min_score, score, final[row, best])
        left[row, best] = -torch.inf
        decayed = left * decay(paired_iou(padded_boxes[row, best][:, None], padded_boxes))
        left = decayed.where(left > -torch.inf, -torch.inf)  # a factor of 0 makes no number of infinity
    kept = final > -torch.inf
    index, scores = table[kept], final[kept]
    scores, order = scores.sort(descending=True, stable=True)
    return index[order], scores


def table_of_classes(classes: Tensor) -> Tensor:
    """The indices of each class that occurs, ascending, filled up with n to the size of the largest class.

    Args:
        classes: [n] int64.

    Returns:
        [C, M] int64.
    """
    _, row, counts = classes.unique(return_inverse=True, return_counts=True)
    order = row.argsort(stable=True)
    first = counts.cumsum(0) - counts  # [C], where each class begins in this order
    column = torch.arange(len(row), device=classes.device) - first[row[order]]
    width = int(counts.max()) if len(counts) else 0
    table = classes.new_full((len(counts), width), len(classes))
    return table.index_put((row[order], column), order)
