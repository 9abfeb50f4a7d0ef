"""Moving an image and its boxes together: the geometry under the transforms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from frcnn.data.images import opencv
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
    scale = np.array([size[1] / width, size[0] / height] * 2)
    boxes = (sample.boxes * scale).astype(np.float32)
    return _with_kept(sample, image, boxes, _has_area(boxes))


def crop(sample: Sample, x: int, y: int, width: int, height: int, min_area_left: float = 0.0) -> Sample:
    """The sample seen through a window whose upper left corner is at (x, y).

    Args:
        sample: the whole.
        x, y, width, height: the window in pixels, inside the image.
        min_area_left: boxes of which no more than this share of their area is left are dropped.
    """
    image = np.ascontiguousarray(sample.image[y : y + height, x : x + width])
    boxes = (
        (sample.boxes - np.array([x, y, x, y], np.float32)).clip(0, [width, height, width, height]).astype(np.float32)
    )
    keep = _has_area(boxes) & (_area(boxes) > min_area_left * _area(sample.boxes))
    return _with_kept(sample, image, boxes, keep)


def _with_kept(sample: Sample, image: np.ndarray, boxes: np.ndarray, keep: np.ndarray) -> Sample:
    return replace(sample, image=image, boxes=boxes[keep], classes=sample.classes[keep])


def _has_area(boxes: np.ndarray) -> np.ndarray:
    return np.logical_and(boxes[:, 2] > boxes[:, 0], boxes[:, 3] > boxes[:, 1])


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]).astype(np.float64) * (boxes[:, 3] - boxes[:, 1])
