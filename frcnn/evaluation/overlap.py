"""How many objects have a box on them, whatever its class, and how else the boxes could be read for it to be more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from frcnn.data.roles import GroundTruth
from frcnn.evaluation.columns import DetectionColumns
from frcnn.ops.boxes import box_iou

MAX_IMAGES = 50
"""How many images are looked at: enough to see what is wrong everywhere, and done within a second."""

FOUND_IOU = 0.5

CONVINCING_SHARE = 0.3
"""Boxes are taken to be understood when at least this share of the objects has one on it."""

Reading = Callable[[Tensor, tuple[int, int]], Tensor]
"""(boxes [D, 4], (h, w) of their image) -> x1 y1 x2 y2 [D, 4]."""


@dataclass(frozen=True)
class ImageOverlap:
    """The objects of one image and its best detections.

    Args:
        size: (h, w) of the image.
        gt_boxes: [G, 4].
        gt_classes: [G].
        boxes: [D, 4].
        classes: [D].
    """

    size: tuple[int, int]
    gt_boxes: Tensor
    gt_classes: Tensor
    boxes: Tensor
    classes: Tensor

    def iou(self) -> Tensor:
        return box_iou(self.gt_boxes, self.boxes)  # [G, D]


def images_with_both(ground_truth: GroundTruth, columns: DetectionColumns) -> list[ImageOverlap]:
    """Some images with objects and detections; of these the best three for each object, so that chance finds little."""
    objects_per_image = np.bincount(
        ground_truth.image_index[~ground_truth.iscrowd], minlength=len(ground_truth.image_ids)
    )
    both = (objects_per_image > 0) & np.isin(ground_truth.image_ids, columns.image_ids)
    images = []
    for image in np.flatnonzero(both)[:MAX_IMAGES].tolist():
        objects = (ground_truth.image_index == image) & ~ground_truth.iscrowd
        found = np.flatnonzero(columns.image_ids == ground_truth.image_ids[image])
        best = found[np.argsort(-columns.scores[found], kind="stable")][: max(10, 3 * int(objects.sum()))]
        height, width = ground_truth.image_sizes[image].tolist()
        images.append(
            ImageOverlap(
                size=(height, width),
                gt_boxes=torch.from_numpy(ground_truth.boxes[objects]).float(),
                gt_classes=torch.from_numpy(ground_truth.classes[objects]),
                boxes=torch.from_numpy(columns.boxes[best]).float(),
                classes=torch.from_numpy(columns.classes[best]),
            )
        )
    return images


def best_overlaps(images: list[ImageOverlap], same_class: bool = False) -> Tensor:
    """[sum of G]: the IoU of each object with the box (with `same_class`: of its class) that lies best on it."""
    best = []
    for image in images:
        iou = image.iou()  # [G, D]
        if same_class:
            iou = iou * (image.gt_classes[:, None] == image.classes)
        best.append(iou.max(dim=1).values)
    return torch.cat(best)


def share_found(overlaps: Tensor) -> float:
    return (overlaps >= FOUND_IOU).float().mean().item()


def misread_boxes(images: list[ImageOverlap], as_they_are: float) -> list[str]:
    """The way of reading the boxes that puts them best on the objects, if there is a convincing one.

    Args:
        images: objects and detections.
        as_they_are: the share of the objects found without any such change.
    """
    readings = []
    for what, read in _readings():
        overlaps = best_overlaps([replace(image, boxes=read(image.boxes, image.size)) for image in images])
        readings.append((overlaps.mean().item(), share_found(overlaps), what))
    _, share, what = max(readings, key=lambda reading: reading[0])
    if share < max(CONVINCING_SHARE, 2 * as_they_are):
        return []
    return [
        f"the boxes {what}: read so, {share:.0%} of the objects have a box on them, and as they are {as_they_are:.0%};"
        " expected are x1, y1, x2, y2 in pixels of the original image"
    ]


def _readings() -> Iterator[tuple[str, Reading]]:
    """Each way in which boxes are written wrongly, and how to undo it; simpler ones first: the first of equals wins."""
    yield "look like x, y, width, height", _from_corner
    yield "look like centre x, centre y, width, height", _from_centre
    yield "look like y1, x1, y2, x2", lambda boxes, _: boxes[:, [1, 0, 3, 2]]
    yield "look like fractions of the image's width and height", _from_fractions
    source = "(are they in pixels of the network's input?)"
    for factor in np.geomspace(1 / 8, 8, 61).tolist():
        if abs(factor - 1) > 0.05:
            how = f"{1 / factor:.1f} times too large" if factor < 1 else f"{factor:.1f} times too small"
            yield f"are about {how} {source}", partial(_scaled, factor)
    for side in np.geomspace(64, 2048, 61).tolist():
        yield f"fit images whose shorter side is about {side:.0f} px {source}", partial(_from_shorter_side, side)


def _from_corner(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def _from_centre(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)


def _from_fractions(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return boxes * boxes.new_tensor([width, height, width, height])


def _scaled(factor: float, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    return boxes * factor


def _from_shorter_side(side: float, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    return boxes * (min(size) / side)


def impossible_boxes(images: list[ImageOverlap]) -> list[str]:
    """What most of the boxes have that no box may have."""
    boxes = torch.cat([image.boxes for image in images])  # [D, 4]
    sizes = torch.cat([torch.tensor([image.size[::-1]]).expand(len(image.boxes), 2) for image in images])  # [D, 2] w, h
    empty = (boxes[:, 2:] <= boxes[:, :2]).any(dim=1).float().mean().item()
    outside = ((boxes[:, :2] >= sizes) | (boxes[:, 2:] <= 0)).any(dim=1).float().mean().item()
    reasons = []
    if empty > 0.5:
        reasons.append(f"{empty:.0%} of the boxes have no width or height; expected are x1 < x2 and y1 < y2")
    if outside > 0.5:
        reasons.append(f"{outside:.0%} of the boxes lie wholly outside their image: they are out of scale")
    return reasons
