"""Rotated boxes: the convention, overlaps, scaling, and the coding of one box relative to another.

A box is five numbers, cx cy w h angle: its centre, its sides and its angle, in pixels and in degrees counter-clockwise as
one looks at the picture (y points down), as in detectron2. At angle 0 `w` lies along x and `h` along y; at 90 `w` points
up. So the directions of the two sides are (cos, -sin) and (sin, cos) of the angle. (w, h, angle) and (h, w, angle + 90) are
the same region, and so is angle + 180. The boxes that networks give have angles in [-180, 180).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from frcnn.ops.boxes import IOU_CHUNK_ELEMENTS, BoxCoder

ROTATED_BOXES = "rotated_boxes"
"""What a data set says that it provides, and a detector that it learns from."""

PAIRS_AT_ONCE = 2**16
"""How many pairs are intersected at once: each takes 20 points, so some 10 MiB a step."""

STRAIGHT = 1.0
"""Degrees that a box may be turned by and still be clipped to the image, as in detectron2."""


@dataclass(frozen=True)
class RotatedBoxCoder(BoxCoder):
    """Codes a rotated box as its offset from another: dx dy dw dh as straight boxes do, and da, the turn in radians.

    https://arxiv.org/abs/1703.01086, section 3.3; dx and dy are along the axes of the image.

    Args:
        weights: factors of dx, dy, dw, dh; larger weights make the regression targets larger.
        clamp: dw and dh above this are cut before the exponential.
        angle_weight: factor of da.
        angle_period: degrees after which an object looks the same. 360 where it has a front; with 180 the shorter of the
            two turns that give the same region is learnt, so that boxes at 85 and -90 degrees are close to each other.
    """

    num_deltas: ClassVar[int] = 5

    angle_weight: float = 1.0
    angle_period: Literal[180, 360] = 360

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.angle_weight > 0:
            raise ValueError(f"angle_weight must be above 0, got {self.angle_weight}")
        if self.angle_period not in (180, 360):
            raise ValueError(f"angle_period must be 180 or 360 degrees, got {self.angle_period}")

    def encode(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        """The deltas [n, 5] that move each box [n, 5] onto its ground truth [n, 5]; all sides positive."""
        x, y, w, h, angle = boxes.float().unbind(-1)  # [n] each
        gt_x, gt_y, gt_w, gt_h, gt_angle = gt_boxes.float().unbind(-1)
        weight_x, weight_y, weight_w, weight_h = self.weights
        turn = wrap_angle(gt_angle - angle, self.angle_period)
        return torch.stack(
            (
                weight_x * (gt_x - x) / w,
                weight_y * (gt_y - y) / h,
                weight_w * torch.log(gt_w / w),
                weight_h * torch.log(gt_h / h),
                self.angle_weight * torch.deg2rad(turn),
            ),
            dim=-1,
        )

    def decode(self, boxes: Tensor, deltas: Tensor) -> Tensor:
        """The boxes that the deltas describe: the inverse of `encode`, with angles in [-180, 180).

        Args:
            boxes: [..., 5].
            deltas: [..., 5], or one set of five per class: [..., 5K] or [..., K, 5].

        Returns:
            boxes of the shape of `deltas`.
        """
        dx, dy, dw, dh, da = deltas.float().unflatten(-1, (-1, 5)).unbind(-1)  # [n, K or 1] or [n, K, 1] each
        missing = (1,) * (dx.dim() - boxes.dim() + 1)
        x, y, w, h, angle = (value.reshape(value.shape + missing) for value in boxes.float().unbind(-1))
        weight_x, weight_y, weight_w, weight_h = self.weights
        decoded = (
            dx / weight_x * w + x,
            dy / weight_y * h + y,
            torch.exp((dw / weight_w).clamp(max=self.clamp)) * w,
            torch.exp((dh / weight_h).clamp(max=self.clamp)) * h,
            wrap_angle(torch.rad2deg(da / self.angle_weight) + angle),
        )
        return torch.stack(decoded, dim=-1).flatten(-2)


def wrap_angle(degrees: Any, period: float = 360.0) -> Any:
    """Degrees, a tensor or an array, in [-period / 2, period / 2)."""
    wrapped = (degrees + period / 2) % period - period / 2
    return wrapped - period * (wrapped >= period / 2)  # the remainder of a tiny negative number rounds up to the period


def rotated_corners(boxes: Tensor) -> Tensor:
    """[..., 5] -> [..., 4, 2]: the corners one after the other, x and y."""
    center, sides, angle = boxes[..., :2], boxes[..., 2:4], torch.deg2rad(boxes[..., 4])
    along_w = torch.stack((angle.cos(), -angle.sin()), dim=-1) * sides[..., :1] / 2  # [..., 2]
    along_h = torch.stack((angle.sin(), angle.cos()), dim=-1) * sides[..., 1:] / 2
    offsets = (along_w + along_h, along_h - along_w, -along_w - along_h, along_w - along_h)
    return center[..., None, :] + torch.stack(offsets, dim=-2)


def rotated_area(boxes: Tensor) -> Tensor:
    """[..., 5] -> [...] in square pixels; 0 for boxes with a negative side."""
    return boxes[..., 2].clamp(min=0) * boxes[..., 3].clamp(min=0)


def paired_rotated_intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Area that two boxes have in common, pair by pair.

    The outline of the first box, seen from the second, is cut where it crosses the lines of the second's sides, and every
    point outside is moved onto the nearest point of the second. What then lies outside has become a part of the second's
    outline, which encloses nothing, and the area that the outline goes around is that of the intersection. No test decides
    between inside and outside, so boxes that touch or that are the same are no special cases.

    Args:
        boxes1: [n, 5].
        boxes2: [n, 5].

    Returns:
        [n] in square pixels.
    """
    boxes1, boxes2 = _precise(boxes1), _precise(boxes2)
    dx, dy = (boxes1[:, :2] - boxes2[:, :2]).unbind(-1)
    angle = torch.deg2rad(boxes2[:, 4])
    cos, sin = angle.cos(), angle.sin()
    center = (dx * cos - dy * sin, dx * sin + dy * cos)
    relative = torch.stack((*center, *boxes1[:, 2:4].clamp(min=0).unbind(-1), boxes1[:, 4] - boxes2[:, 4]), dim=-1)
    start = rotated_corners(relative)  # [n, 4, 2]
    side = start.roll(-1, dims=1) - start  # [n, 4, 2]
    half = boxes2[:, None, 2:4].clamp(min=0) / 2  # [n, 1, 2]
    crossings = torch.cat(((half - start) / side, (-half - start) / side), dim=-1)  # [n, 4, 4], in parts of the side
    crossings = crossings.nan_to_num(0.0, 0.0, 0.0).clamp(0, 1).sort(dim=-1).values  # a parallel side crosses nothing
    along = torch.cat((torch.zeros_like(crossings[..., :1]), crossings), dim=-1)  # [n, 4, 5]
    points = start[:, :, None] + along[..., None] * side[:, :, None]  # [n, 4, 5, 2]
    outline = torch.minimum(torch.maximum(points.flatten(1, 2), -half), half)  # [n, 20, 2]
    following = outline.roll(-1, dims=1)
    twice = outline[..., 0] * following[..., 1] - outline[..., 1] * following[..., 0]
    return twice.sum(dim=-1).abs() / 2


def paired_rotated_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of box with box: [n, 5], [n, 5] -> [n] in 0..1; 0 for boxes without area."""
    boxes1, boxes2 = _precise(boxes1), _precise(boxes2)
    area1, area2 = rotated_area(boxes1), rotated_area(boxes2)
    intersection = torch.minimum(paired_rotated_intersection(boxes1, boxes2), torch.minimum(area1, area2))
    return intersection / (area1 + area2 - intersection).clamp(min=torch.finfo(torch.float32).tiny)


def rotated_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair: [G, 5], [N, 5] -> [G, N] in 0..1.

    Only pairs whose circumscribed circles meet are intersected, `PAIRS_AT_ONCE` at a time.
    """
    boxes1, boxes2 = _precise(boxes1), _precise(boxes2)
    rows, columns = torch.nonzero(circles_meet(boxes1[:, None], boxes2), as_tuple=True)  # [m] each
    return boxes1.new_zeros(len(boxes1), len(boxes2)).index_put(
        (rows, columns), iou_of_pairs(boxes1, boxes2, rows, columns)
    )


def iou_of_pairs(boxes1: Tensor, boxes2: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[m]: the IoU of boxes1[rows] and boxes2[columns], in steps of bounded memory."""
    steps = zip(rows.split(PAIRS_AT_ONCE), columns.split(PAIRS_AT_ONCE), strict=True)
    return torch.cat([paired_rotated_iou(boxes1[row], boxes2[column]) for row, column in steps])


def rotated_iou_chunks(gt_boxes: Tensor, boxes: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The rows of `rotated_iou(gt_boxes, boxes)`, some ground truths at a time; see `frcnn.ops.boxes.iou_chunks`."""
    step = max(1, IOU_CHUNK_ELEMENTS // max(1, len(boxes)))
    for first in range(0, len(gt_boxes), step):
        yield first, rotated_iou(gt_boxes[first : first + step], boxes)  # [g, N]


def circles_meet(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Whether the circles around two boxes meet, broadcast: [..., 5], [..., 5] -> [...] bool."""
    offset = boxes1[..., :2] - boxes2[..., :2]
    reach = (boxes1[..., 2:4].norm(dim=-1) + boxes2[..., 2:4].norm(dim=-1)) / 2
    return offset.square().sum(dim=-1) <= reach.square()


def scale_rotated(boxes: Tensor, scale_x: float, scale_y: float) -> Tensor:
    """Boxes [..., 5] in an image that is scaled.

    A turned rectangle becomes a parallelogram where the two scales differ. It is replaced by the rectangle with sides of
    the same lengths and the angle of the parallelogram's `h`, as in detectron2.
    """
    x, y, w, h, angle = boxes.unbind(-1)
    if scale_x == scale_y:
        return torch.stack((x * scale_x, y * scale_y, w * scale_x, h * scale_x, angle), dim=-1)
    radians = torch.deg2rad(angle)
    cos, sin = radians.cos(), radians.sin()
    w = w * torch.hypot(scale_x * cos, scale_y * sin)
    h = h * torch.hypot(scale_x * sin, scale_y * cos)
    angle = torch.rad2deg(torch.atan2(scale_x * sin, scale_y * cos))
    return torch.stack((x * scale_x, y * scale_y, w, h, wrap_angle(angle)), dim=-1)


def clip_straight(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cuts off what lies outside the image (h, w) of boxes [..., 5] that are hardly turned.

    A turned box that was cut off would be no rectangle: it stays as it is. A straight box that lies outside has no area.
    """
    height, width = size
    x, y, w, h, angle = boxes.unbind(-1)
    left, right = (x - w / 2).clamp(0, width), (x + w / 2).clamp(0, width)
    top, bottom = (y - h / 2).clamp(0, height), (y + h / 2).clamp(0, height)
    clipped = torch.stack(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top, angle), dim=-1)
    return torch.where((angle.abs() <= STRAIGHT)[..., None], clipped, boxes)


def large_rotated_mask(boxes: Tensor, min_size: float = 0.0, inclusive: bool = False) -> Tensor:
    """[n] bool: which boxes [n, 5] are wider and higher than a limit; with the defaults, which ones are not empty."""
    shorter = boxes[:, 2:4].amin(dim=1)
    return shorter >= min_size if inclusive else shorter > min_size


def _precise(boxes: Tensor) -> Tensor:
    return boxes if boxes.dtype == torch.float64 else boxes.float()
