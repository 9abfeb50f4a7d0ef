"""Boxes: areas, overlaps, clipping, and the coding of one box relative to another.

A box is absolute x1 y1 x2 y2 in pixels. Everything here computes in float32, also under autocast: in bfloat16 a box of
1 px far from the origin has no width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

IOU_CHUNK_ELEMENTS = 2**22
"""How many IoUs `iou_chunks` holds at once (16 MiB, and a few times that while they are computed)."""


@dataclass(frozen=True)
class BoxCoder:
    """Codes a box as its offset from another: dx, dy in widths and heights, dw, dh as logarithms (R-CNN, appendix C).

    Args:
        weights: factors of dx, dy, dw, dh; larger weights make the regression targets larger.
        clamp: dw and dh above this are cut before the exponential, so that no decoded box is infinite; negative values
            are left alone, as in detectron2 and torchvision.
    """

    num_deltas: ClassVar[int] = 4
    """How many deltas describe a box; as many as the box has numbers."""

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    clamp: float = math.log(1000.0 / 16)

    def __post_init__(self) -> None:
        if len(self.weights) != 4 or not all(weight > 0 for weight in self.weights):
            raise ValueError(f"weights must be four positive numbers (dx, dy, dw, dh), got {self.weights}")
        if not self.clamp > 0:
            raise ValueError(f"clamp must be above 0, got {self.clamp}")

    def encode(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        """The deltas that move each box onto its ground truth.

        Args:
            boxes: [n, 4], of positive width and height.
            gt_boxes: [n, 4], of positive width and height.

        Returns:
            deltas [n, 4].
        """
        x, y, w, h = _centers_and_sizes(boxes.float())  # [n] each
        gt_x, gt_y, gt_w, gt_h = _centers_and_sizes(gt_boxes.float())
        weight_x, weight_y, weight_w, weight_h = self.weights
        return torch.stack(
            (
                weight_x * (gt_x - x) / w,
                weight_y * (gt_y - y) / h,
                weight_w * torch.log(gt_w / w),
                weight_h * torch.log(gt_h / h),
            ),
            dim=-1,
        )

    def decode(self, boxes: Tensor, deltas: Tensor) -> Tensor:
        """The boxes that the deltas describe: the inverse of `encode`.

        Args:
            boxes: [..., 4].
            deltas: [..., 4], or one set of four per class: [..., 4K] or [..., K, 4].

        Returns:
            boxes of the shape of `deltas`.
        """
        dx, dy, dw, dh = deltas.float().unflatten(-1, (-1, 4)).unbind(-1)  # [n, K or 1] or [n, K, 1] each
        missing = (1,) * (dx.dim() - boxes.dim() + 1)
        x, y, w, h = (value.reshape(value.shape + missing) for value in _centers_and_sizes(boxes.float()))
        weight_x, weight_y, weight_w, weight_h = self.weights
        center_x = dx / weight_x * w + x
        center_y = dy / weight_y * h + y
        half_w = 0.5 * (torch.exp((dw / weight_w).clamp(max=self.clamp)) * w)
        half_h = 0.5 * (torch.exp((dh / weight_h).clamp(max=self.clamp)) * h)
        corners = (center_x - half_w, center_y - half_h, center_x + half_w, center_y + half_h)
        return torch.stack(corners, dim=-1).flatten(-2)


def _centers_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre x, centre y, width, height of [n, 4]."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = x2 - x1, y2 - y1
    return x1 + 0.5 * w, y1 + 0.5 * h, w, h


def box_centers(boxes: Tensor) -> Tensor:
    """[..., 4] -> [..., 2], x and y."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def points_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether each point lies inside its box, and not on its edge; broadcast.

    Args:
        points: [..., 2].
        boxes: [..., 4].

    Returns:
        [...] bool.
    """
    return ((points > boxes[..., :2]) & (points < boxes[..., 2:])).all(dim=-1)


def box_area(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...] in square pixels."""
    x1, y1, x2, y2 = boxes.float().unbind(-1)
    return (x2 - x1) * (y2 - y1)


def paired_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of box with box, broadcast; 0 where they do not intersect, also for boxes without area.

    Args:
        boxes1: [..., 4].
        boxes2: [..., 4].

    Returns:
        [...] in 0..1.
    """
    ax1, ay1, ax2, ay2 = boxes1.float().unbind(-1)
    bx1, by1, bx2, by2 = boxes2.float().unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    intersection = width * height
    union = box_area(boxes1) + box_area(boxes2) - intersection
    return intersection / union.clamp(min=torch.finfo(torch.float32).tiny)


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair; 0 where they do not intersect, also for two boxes without area.

    Args:
        boxes1: [G, 4].
        boxes2: [N, 4].

    Returns:
        [G, N] in 0..1.
    """
    return paired_iou(boxes1[:, None], boxes2)


def box_giou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU of every pair (https://arxiv.org/abs/1902.09630): IoU less the empty part of the box around both.

    Args:
        boxes1: [G, 4].
        boxes2: [N, 4].

    Returns:
        [G, N] in -1..1; finite for boxes without area too.
    """
    boxes1, boxes2 = boxes1.float()[:, None], boxes2.float()
    around = torch.cat(
        (torch.minimum(boxes1[..., :2], boxes2[..., :2]), torch.maximum(boxes1[..., 2:], boxes2[..., 2:])), -1
    )
    iou = paired_iou(boxes1, boxes2)  # [G, N]
    union = (box_area(boxes1) + box_area(boxes2)) / (1 + iou)
    hull = box_area(around)
    return iou - (hull - union) / hull.clamp(min=torch.finfo(torch.float32).tiny)


def iou_chunks(gt_boxes: Tensor, boxes: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The rows of `box_iou(gt_boxes, boxes)`, some ground truths at a time, so that memory does not grow with G x N.

    Args:
        gt_boxes: [G, 4].
        boxes: [N, 4].

    Yields:
        the index of the first ground truth, and the IoU [g, N] of the g ground truths from there on.
    """
    step = max(1, IOU_CHUNK_ELEMENTS // max(1, len(boxes)))
    for first in range(0, len(gt_boxes), step):
        yield first, box_iou(gt_boxes[first : first + step], boxes)  # [g, N]


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts off what lies outside the image.

    Args:
        boxes: [..., 4].
        size: (h, w) of the image in pixels.
    """
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    clipped = (x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height))
    return torch.stack(clipped, dim=-1)


def large_mask(boxes: Tensor, min_size: float = 0.0, inclusive: bool = False) -> Tensor:
    """Which boxes are wider and higher than a limit; with the defaults, which ones are not empty.

    Args:
        boxes: [n, 4].
        min_size: the limit in pixels.
        inclusive: whether a side of exactly `min_size` passes (torchvision) or not (detectron2).

    Returns:
        [n] bool.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    shorter = torch.minimum(x2 - x1, y2 - y1)
    return shorter >= min_size if inclusive else shorter > min_size
