"""Weighted box fusion: what several views of an image say of it, merged instead of suppressed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from frcnn.ops.boxes import paired_iou
from frcnn.ops.nms import table_of_classes


class FusedBoxes(NamedTuple):
    """Merged boxes, best first.

    Args:
        boxes: [m, 4], the mean of each cluster's boxes, weighed by their scores.
        scores: [m] in 0..1.
        classes: [m] int64.
        best: [m] int64, which of the boxes that came in is the best of each cluster.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    best: Tensor


def weighted_box_fusion(
    boxes: Tensor, scores: Tensor, classes: Tensor, num_views: int, iou_threshold: float = 0.55
) -> FusedBoxes:
    """Merges the boxes of a class that overlap (https://arxiv.org/abs/1910.13302).

    From the best box to the worst, each joins the cluster whose mean box it overlaps most, or begins one of its own. The
    score of a cluster is the mean score of its boxes, times the share of the views that found it.

    Args:
        boxes: [n, 4] of all views behind one another, in the pixels of one image.
        scores: [n] above 0, up to 1.
        classes: [n] int64; boxes of different classes do not touch each other.
        num_views: how many views (or models) the boxes come from.
        iou_threshold: the IoU with the mean box above which a box joins.

    Raises:
        ValueError: `num_views` is below 1.
    """
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1, got {num_views}")
    order = scores.argsort(descending=True, stable=True)
    boxes, scores, classes = boxes[order].float(), scores[order].float(), classes[order]
    table = table_of_classes(classes)  # [C, M], the best of each class first
    padded_boxes = torch.cat((boxes, boxes.new_zeros(1, 4)))[table]  # [C, M, 4]
    padded_scores = torch.cat((scores, scores.new_zeros(1)))[table]  # [C, M]
    row = torch.arange(len(table), device=boxes.device)
    weighted, weight = torch.zeros_like(padded_boxes), torch.zeros_like(padded_scores)  # sums of each cluster
    size, first = torch.zeros_like(table), torch.full_like(table, len(boxes))
    num_clusters = torch.zeros_like(row)  # [C]
    for column in range(table.shape[1]):  # all classes take their steps together
        box, score, index = padded_boxes[:, column], padded_scores[:, column], table[:, column]  # of each class
        iou, closest = paired_iou(mean_boxes(weighted, weight), box[:, None]).max(dim=1)  # [C] each
        joins = (iou > iou_threshold) | (num_clusters == table.shape[1])
        cluster = torch.where(joins, closest, num_clusters)
        exists = index < len(boxes)
        weighted[row, cluster] += box * score[:, None]
        weight[row, cluster] += score
        size[row, cluster] += exists
        first[row, cluster] = torch.minimum(first[row, cluster], index)
        num_clusters += exists & ~joins
    found = size > 0  # [C, M]
    fused_scores = weight[found] / size[found] * size[found].clamp(max=num_views) / num_views
    fused_scores, best_first = fused_scores.sort(descending=True, stable=True)
    best = first[found][best_first]
    return FusedBoxes(mean_boxes(weighted, weight)[found][best_first], fused_scores, classes[best], order[best])


def mean_boxes(weighted: Tensor, weight: Tensor) -> Tensor:
    """[..., 4] sums of weighted boxes over [...] sums of weights; zeros where nothing was summed."""
    return weighted / weight.clamp(min=torch.finfo(weight.dtype).tiny)[..., None]
