"""The mask of an object while its image is transformed: numbers that move exactly, and pixels at the very end.

Every geometric transform of an image is a scaling, a shift or a mirror, axis by axis. A polygon goes through them point
by point. A bitmap keeps the pixels of the file and goes through them as the box that these pixels fill, so it is
resampled once, however many transforms there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frcnn.data.images import opencv

MARGIN = 1
"""Pixels of zeros around a mask, inside the image: bilinear sampling at its edge is then what it is in the whole image."""
GRID = 5
"""pycocotools rounds the points of a polygon to fifths of a pixel."""

Pair = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Raster:
    """A mask as pixels.

    Args:
        pixels: [h, w] uint8, 0 or 1; at least one pixel.
        x, y: where its upper left corner lies in the image.
    """

    pixels: np.ndarray
    x: int
    y: int

    @property
    def window(self) -> tuple[int, int, int, int]:
        """x1 y1 x2 y2 in the image, x2 and y2 exclusive."""
        height, width = self.pixels.shape
        return self.x, self.y, self.x + width, self.y + height


class Mask:
    """The mask of one object, in the coordinates of its image. May reach out of the image; what lies outside is cut off."""

    def moved(self, scale: Pair, shift: Pair) -> Mask:
        """The mask with every point at (x, y) * scale + shift; a negative scale mirrors."""
        raise NotImplementedError(f"{type(self).__name__} must define moved()")

    def bounds(self, height: int, width: int) -> Box | None:
        """The box that fits what of it lies inside an image of that size, or None if nothing does."""
        raise NotImplementedError(f"{type(self).__name__} must define bounds()")

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """x1 y1 x2 y2 of its raster in an image of that size: what fits, with a margin of one pixel. Costs little."""
        raise NotImplementedError(f"{type(self).__name__} must define window()")

    def raster(self, height: int, width: int) -> Raster:
        """Its pixels in an image of that size, in its window."""
        raise NotImplementedError(f"{type(self).__name__} must define raster()")


@dataclass(frozen=True)
class PolygonMask(Mask):
    """A mask outlined by polygons; more than one where something covers its middle.

    Args:
        polygons: each [n, 2] float64 x, y; at least 3 points.
    """

    polygons: tuple[np.ndarray, ...]

    def moved(self, scale: Pair, shift: Pair) -> PolygonMask:
        return PolygonMask(tuple(polygon * scale + shift for polygon in self.polygons))

    def bounds(self, height: int, width: int) -> Box | None:
        points = np.concatenate([_points_inside(polygon, height, width) for polygon in self.polygons])  # [n, 2]
        return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist()) if len(points) else None

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        every = np.concatenate(self.polygons)  # [n, 2]
        return _window((*every.min(axis=0).tolist(), *every.max(axis=0).tolist()), height, width)

    def raster(self, height: int, width: int) -> Raster:
        """Pixels by the rule of pycocotools, so that areas are COCO's.

        A mask of less than a pixel has no pixel by that rule; it then gets those that its outline crosses.
        """
        from pycocotools import mask as coco_mask

        x1, y1, x2, y2 = self.window(height, width)
        corner = np.array([x1, y1])
        shifted = [_shifted_on_grid(polygon, corner).ravel().tolist() for polygon in self.polygons]
        runs = coco_mask.frPyObjects(shifted, y2 - y1, x2 - x1)
        pixels = coco_mask.decode(coco_mask.merge(runs) if len(runs) > 1 else runs[0])  # [h, w]
        if not pixels.any():
            pixels = np.zeros(pixels.shape, np.uint8)
            outlines = [np.floor(polygon - corner).astype(np.int32) for polygon in self.polygons]
            opencv().polylines(pixels, outlines, isClosed=True, color=1)
        return Raster(np.ascontiguousarray(pixels), x1, y1)


@dataclass(frozen=True)
class BitmapMask(Mask):
    """A mask of pixels that were drawn on an image of another size, perhaps.

    Args:
        pixels: [h, w] uint8, 0 or 1, without empty rows and columns around.
        box: x1 y1 x2 y2, what of the image these pixels fill.
    """

    pixels: np.ndarray
    box: Box

    @classmethod
    def of(cls, pixels: np.ndarray) -> BitmapMask:
        """The mask that is 1 where `pixels` [height, width] of the whole image are."""
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        if not len(rows):
            return cls(np.zeros((0, 0), np.uint8), (0.0, 0.0, 0.0, 0.0))
        y1, y2, x1, x2 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        return cls(np.array(pixels[y1:y2, x1:x2], np.uint8, order="C"), (float(x1), float(y1), float(x2), float(y2)))

    def moved(self, scale: Pair, shift: Pair) -> BitmapMask:
        x = sorted(side * scale[0] + shift[0] for side in self.box[::2])
        y = sorted(side * scale[1] + shift[1] for side in self.box[1::2])
        pixels = self.pixels[:: 1 if scale[1] > 0 else -1, :: 1 if scale[0] > 0 else -1]
        return BitmapMask(pixels, (x[0], y[0], x[1], y[1]))

    def bounds(self, height: int, width: int) -> Box | None:
        if not self.pixels.size:
            return None
        edges_x = np.linspace(self.box[0], self.box[2], self.pixels.shape[1] + 1)
        edges_y = np.linspace(self.box[1], self.box[3], self.pixels.shape[0] + 1)
        inside_x = (edges_x[1:] > 0) & (edges_x[:-1] < width)
        inside_y = (edges_y[1:] > 0) & (edges_y[:-1] < height)
        part = self.pixels.astype(bool) & inside_x & inside_y[:, None]
        rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
        if not len(rows):
            return None
        x = edges_x[[columns[0], columns[-1] + 1]].clip(0, width).tolist()
        y = edges_y[[rows[0], rows[-1] + 1]].clip(0, height).tolist()
        return x[0], y[0], x[1], y[1]

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        return _window(self.box, height, width)

    def raster(self, height: int, width: int) -> Raster:
        """Pixels of which the mask covers half, bilinearly; a mask of less than a pixel gets those that it touches."""
        x1, y1, x2, y2 = self.window(height, width)
        if not self.pixels.size:
            return Raster(np.zeros((y2 - y1, x2 - x1), np.uint8), x1, y1)
        cv2 = opencv()
        box = _at_least_a_pixel(self.box)
        sides = box[2] - box[0], box[3] - box[1]
        source = np.ascontiguousarray(self.pixels) * np.uint8(255)
        # Bilinear sampling alone would leave out most pixels of a mask that shrinks.
        smaller = [max(1, min(have, round(side))) for have, side in zip(source.shape[::-1], sides, strict=True)]
        if tuple(smaller) != source.shape[::-1]:
            source = cv2.resize(source, smaller, interpolation=cv2.INTER_AREA)
        step_x, step_y = source.shape[1] / sides[0], source.shape[0] / sides[1]
        # From the centre of a pixel of the window to the centres of the source's pixels, which OpenCV counts from 0.
        to_source = np.array(
            [
                [step_x, 0, (x1 + 0.5 - box[0]) * step_x - 0.5],
                [0, step_y, (y1 + 0.5 - box[1]) * step_y - 0.5],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        coverage = cv2.warpAffine(source, to_source, (x2 - x1, y2 - y1), flags=flags)  # [h, w]
        pixels = (coverage > 127).view(np.uint8)
        return Raster(pixels if pixels.any() else (coverage > 0).view(np.uint8), x1, y1)


def select_masks(masks: Sequence[Mask], keep: np.ndarray) -> list[Mask]:
    """The masks for which `keep` [G] is true."""
    return [mask for mask, kept in zip(masks, keep.tolist(), strict=True) if kept]


def _window(box: Box, height: int, width: int) -> tuple[int, int, int, int]:
    """The box rounded outward, with the margin, inside the image, and of at least one pixel."""
    x1 = int(np.clip(np.floor(box[0]) - MARGIN, 0, width - 1))
    y1 = int(np.clip(np.floor(box[1]) - MARGIN, 0, height - 1))
    x2 = int(np.clip(np.ceil(box[2]) + MARGIN, x1 + 1, width))
    y2 = int(np.clip(np.ceil(box[3]) + MARGIN, y1 + 1, height))
    return x1, y1, x2, y2


def _at_least_a_pixel(box: Box) -> Box:
    """The box widened about its centre, so that it holds the centre of a pixel."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_width, half_height = max(box[2] - box[0], 1.0) / 2, max(box[3] - box[1], 1.0) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def _shifted_on_grid(polygon: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """[n, 2]: the polygon as seen from `corner`, at the grid points that pycocotools would round it to in the whole image.

    Rounded first, a point in the middle between two grid points goes the same way however large its coordinates are.
    """
    steps = np.trunc(polygon * GRID + 0.5)
    # pycocotools adds a half and cuts off toward zero: below zero, a number a quarter lower is cut to the same step.
    return (steps - np.where(steps < 0, 0.75, 0.0)) / GRID - corner


def _points_inside(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """[n, 2]: points of a polygon's part inside the image, among them those where that is furthest to each side.

    These are the ends of what is left of each edge (Liang and Barsky, A New Concept and Method for Line Clipping, 1984) and
    the corners of the image that lie in the polygon.
    """
    size = np.array([width, height], np.float64)
    step = np.roll(polygon, -1, axis=0) - polygon  # [n, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = -polygon / step, (size - polygon) / step  # [n, 2], in lengths of the edge
    level = step == 0
    between = (polygon >= 0) & (polygon <= size)
    enter = np.where(level, np.where(between, -np.inf, np.inf), np.minimum(low, high)).max(axis=1).clip(0)  # [n]
    leave = np.where(level, np.where(between, np.inf, -np.inf), np.maximum(low, high)).min(axis=1).clip(max=1)
    kept = enter <= leave
    ends = [polygon[kept] + step[kept] * t[kept, None] for t in (enter, leave)]
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    return np.concatenate([*ends, corners[_is_inside(polygon, corners)]]).clip(0, size)


def _is_inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """[p] bool: whether a ray from each point to the right crosses the polygon an odd number of times."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    x, y = points[:, None, 0], points[:, None, 1]  # [p, 1]
    crosses = (start[:, 1] > y) != (end[:, 1] > y)  # [p, n]
    with np.errstate(divide="ignore", invalid="ignore"):
        at = start[:, 0] + (y - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end[:, 0] - start[:, 0])
    return (crosses & (x < at)).sum(axis=1) % 2 == 1
