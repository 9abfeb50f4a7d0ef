"""How well a grid of anchors covers objects where they are: shapes and places together, without listing the anchors.

Of all anchors of one shape and one level, the one whose centre is nearest to the object's has the largest overlap, in x and
in y alike. So an object needs one IoU a shape and level, and not one for each of a few hundred thousand anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

THRESHOLDS = (0.5, 0.6, 0.7)
"""IoU with its best anchor from which on an object counts as recalled."""


@dataclass(frozen=True)
class AnchorGrid:
    """Sizes and aspect ratios of the anchors at one location.

    Args:
        sizes: for each level, square roots of areas in pixels.
        aspect_ratios: heights over widths; one list for each level, or a single one for all.
    """

    sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[tuple[float, ...], ...]

    def ratios_of(self, level: int) -> tuple[float, ...]:
        return self.aspect_ratios[level if len(self.aspect_ratios) > 1 else 0]

    @property
    def num_anchors(self) -> int:
        """At one location of one level."""
        return len(self.sizes[0]) * len(self.ratios_of(0))


@dataclass(frozen=True)
class Coverage:
    """How well anchors cover objects.

    Args:
        mean_iou: of each object with its best anchor.
        recall: IoU threshold -> share of the objects, 0..1, whose best anchor reaches it.
    """

    mean_iou: float
    recall: dict[float, float]

    @property
    def score(self) -> float:
        """The mean of all these numbers, in 0..1: what anchors are fitted to."""
        return (self.mean_iou + sum(self.recall.values())) / (1 + len(self.recall))

    def shortfall(self, before: Coverage) -> float:
        """By how much its numbers are below those of another, together."""
        return max(0.0, before.mean_iou - self.mean_iou) + sum(
            max(0.0, share - self.recall[threshold]) for threshold, share in before.recall.items()
        )


@dataclass(frozen=True)
class PlacedObjects:
    """Objects, and how far from them the anchors of each level are.

    Args:
        shapes: [n, 2] width and height in pixels.
        distances: [L, n, 2] in x and y, from the centre of an object to the nearest centre of anchors of a level.
        round_cells: anchors at the origin are rounded to whole pixels.
    """

    shapes: np.ndarray
    distances: np.ndarray
    round_cells: bool = False

    def __len__(self) -> int:
        return len(self.shapes)

    def sample(self, count: int) -> PlacedObjects:
        """So many of them at most, spread evenly."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int))
        return PlacedObjects(self.shapes[chosen], self.distances[:, chosen], self.round_cells)

    def best_iou(self, level: int, sizes: Sequence[float], aspect_ratios: Sequence[float]) -> np.ndarray:
        """[n], of each object with the best anchor of a level."""
        size, ratio = (axis.ravel() for axis in np.meshgrid(sizes, aspect_ratios))
        anchors = size[:, None] * np.stack([ratio**-0.5, ratio**0.5], axis=1)  # [A, 2] width, height
        if self.round_cells:
            anchors = 2 * (anchors / 2).round()
        shapes, distance = self.shapes[:, None], self.distances[level][:, None]  # [n, 1, 2]
        reach = (shapes + anchors) / 2 - distance  # [n, A, 2]
        common = np.minimum(np.minimum(shapes, anchors), reach).clip(0).prod(axis=-1)  # [n, A]
        union = shapes.prod(axis=-1) + anchors.prod(axis=-1) - common
        return (common / union).max(axis=1)


def place(
    boxes_per_image: Sequence[np.ndarray],
    image_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    *,
    offset: float = 0.0,
    padded_size: bool = False,
    round_cells: bool = False,
) -> PlacedObjects:
    """Objects among the places that the anchors of each level have in their image.

    Args:
        boxes_per_image: n x [G, 4] in pixels of the network's input.
        image_sizes: n x (h, w), padded.
        strides: of the levels in pixels.
        offset: centre of the first anchor in strides from the image's corner.
        padded_size: the stride is the image's size // the grid's size, as torchvision has it.
        round_cells: see PlacedObjects.
    """
    shapes, distances = [np.zeros((0, 2))], [np.zeros((len(strides), 0, 2))]
    for boxes, (height, width) in zip(boxes_per_image, image_sizes, strict=True):
        boxes = boxes.astype(np.float64)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # [G, 2]
        extent = np.array([width, height])
        per_level = []
        for stride in strides:
            grid = -(-extent // stride)  # [2] columns, rows
            steps = extent // grid if padded_size else np.full(2, stride)
            nearest = (centres / steps - offset).round().clip(0, grid - 1)  # [G, 2]
            per_level.append(np.abs(centres - (nearest + offset) * steps))
        shapes.append(boxes[:, 2:] - boxes[:, :2])
        distances.append(np.stack(per_level))
    return PlacedObjects(np.concatenate(shapes), np.concatenate(distances, axis=1), round_cells)


class CoverageOf:
    """(grid) -> Coverage of some objects. It remembers levels, because grids that are compared differ in few.

    Args:
        objects: at least one.
    """

    def __init__(self, objects: PlacedObjects) -> None:
        self.best_iou = lru_cache(maxsize=64)(objects.best_iou)

    def __call__(self, grid: AnchorGrid) -> Coverage:
        per_level = [self.best_iou(level, sizes, grid.ratios_of(level)) for level, sizes in enumerate(grid.sizes)]
        iou = np.max(per_level, axis=0)  # [n]
        return Coverage(float(iou.mean()), {t: float((iou >= t).mean()) for t in THRESHOLDS})
