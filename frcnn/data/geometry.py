"""Moving an image and its objects together: the geometry under the transforms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from frcnn.data.images import opencv
from frcnn.data.keypoints import labelled_inside
from frcnn.data.masks import Pair, select_masks
from frcnn.data.roles import Sample

Rounding = Literal["half_up", "floor"]


def shortest_edge_size(height: int, width: int, size: int, max_size: int, rounding: Rounding) -> tuple[int, int]:
    """(h, w) after scaling the shorter side to `size`, or the longer side to `max_size` if it would get longer.

    The two roundings are also two ways to compute the scale: each is its origin's, so that sizes agree with it to the
    pixel.
    """
    shorter, longer = min(height, width), max(height, width)
    if rounding == "floor":
        scale = min(size / shorter, max_size / longer)
        return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
    scale = size / shorter
    scaled_shorter, scaled_longer = float(size), scale * longer
    if scaled_longer > max_size:
        limit = max_size / scaled_longer
        scaled_shorter, scaled_longer = scaled_shorter * limit, scaled_longer * limit
    sides = max(1, int(scaled_shorter + 0.5)), max(1, int(scaled_longer + 0.5))
    return sides if height <= width else (sides[1], sides[0])


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """The sample with its image bilinearly scaled to (h, w)."""
    height, width = sample.image.shape[:2]
    if size == (height, width):
        return sample
    cv2 = opencv()
    image = cv2.resize(sample.image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    moved = _moved(sample, image, (size[1] / width, size[0] / height), (0.0, 0.0))
    return _with_kept(moved, _has_area(moved.boxes))


def flip(sample: Sample) -> Sample:
    """The sample in a mirror: left is right, of keypoints too."""
    moved = _moved(sample, opencv().flip(sample.image, 1), (-1.0, 1.0), (float(sample.image.shape[1]), 0.0))
    if moved.keypoints is None or moved.keypoint_mirror is None:
        return moved
    return replace(moved, keypoints=moved.keypoints[:, moved.keypoint_mirror])


def shift(sample: Sample, image: np.ndarray, x: int, y: int) -> Sample:
    """The sample's objects as a part of another image, x pixels further right and y further down."""
    return _moved(sample, image, (1.0, 1.0), (float(x), float(y)))


def crop(sample: Sample, x: int, y: int, width: int, height: int, min_area_left: float = 0.0) -> Sample:
    """The sample seen through a window whose upper left corner is at (x, y).

    An object with a mask that the window cuts gets the box of what is left of its mask, as in detectron2 (torchvision only
    clips the box). The clipped box would be larger than the object in it, and a box whose mask lies outside would stay as
    an object of which nothing is seen.

    Args:
        sample: the whole.
        x, y, width, height: the window in pixels, inside the image.
        min_area_left: boxes of which no more than this share of their area is left are dropped.
    """
    image = np.ascontiguousarray(sample.image[y : y + height, x : x + width])
    moved = _moved(sample, image, (1.0, 1.0), (-float(x), -float(y)))
    boxes = moved.boxes.clip(0, [width, height, width, height]).astype(np.float32)
    if moved.masks is not None:
        for i in np.flatnonzero((boxes != moved.boxes).any(axis=1)).tolist():
            boxes[i] = moved.masks[i].bounds(height, width) or 0
    keep = _has_area(boxes) & (_area(boxes) > min_area_left * _area(sample.boxes))
    if moved.keypoints is not None:
        moved = replace(moved, keypoints=labelled_inside(moved.keypoints, height, width))
    return _with_kept(replace(moved, boxes=boxes), keep)


def _moved(sample: Sample, image: np.ndarray, scale: Pair, shift: Pair) -> Sample:
    """The sample with a new image, and all that lies at (x, y) at (x, y) * scale + shift."""
    points = None
    if sample.keypoints is not None:
        labelled = sample.keypoints[..., 2:] > 0  # [G, J, 1]
        points = np.where(labelled, sample.keypoints * (*scale, 1.0) + (*shift, 0.0), 0).astype(np.float32)
    return replace(
        sample,
        image=image,
        boxes=_moved_boxes(sample.boxes, scale, shift),
        masks=None if sample.masks is None else [mask.moved(scale, shift) for mask in sample.masks],
        keypoints=points,
        proposals=None if sample.proposals is None else _moved_boxes(sample.proposals, scale, shift),
    )


def _moved_boxes(boxes: np.ndarray, scale: Pair, shift: Pair) -> np.ndarray:
    moved = (boxes * np.array(scale * 2) + np.array(shift * 2)).astype(np.float32)
    return np.ascontiguousarray(moved[:, [2, 1, 0, 3]]) if scale[0] < 0 else moved


def _with_kept(sample: Sample, keep: np.ndarray) -> Sample:
    """The sample with the objects for which `keep` [G] is true, and with the proposals that have an area in the image."""
    height, width = sample.image.shape[:2]
    proposals = sample.proposals
    if proposals is not None:
        proposals = proposals.clip(0, np.array([width, height, width, height], np.float32))
        proposals = proposals[_has_area(proposals)]
    return replace(
        sample,
        boxes=sample.boxes[keep],
        classes=sample.classes[keep],
        masks=None if sample.masks is None else select_masks(sample.masks, keep),
        keypoints=None if sample.keypoints is None else sample.keypoints[keep],
        proposals=proposals,
    )


def _has_area(boxes: np.ndarray) -> np.ndarray:
    return np.logical_and(boxes[:, 2] > boxes[:, 0], boxes[:, 3] > boxes[:, 1])


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]).astype(np.float64) * (boxes[:, 3] - boxes[:, 1])
