"""Transforms that make one training image of several: mosaic, mix-up, copy-paste.

The further images come as the data set gives them, before any transform; what follows in the list of transforms sees the
mixed image. Proposals are not mixed: they would be of one image and used for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from frcnn.data.geometry import crop, flip, resize, shift
from frcnn.data.images import opencv
from frcnn.data.masks import BitmapMask, Raster
from frcnn.data.roles import TRANSFORMS, Sample, Transform
from frcnn.data.transforms import Others, check_fraction
from frcnn.errors import UserError


@TRANSFORMS.register
class Mosaic(Transform):
    """Four images around a random point, each scaled until it covers its quarter, and cut (YOLOv4, https://arxiv.org/abs/2004.10934).

    Args:
        size: (height, width) of the result in pixels.
        probability: of mixing; other samples pass as they are.
        center_range: between which shares of height and width the point lies where the four meet.
        min_area_left: objects of which no more than this share of their area is left are dropped.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        probability: float = 1.0,
        center_range: tuple[float, float] = (0.25, 0.75),
        min_area_left: float = 0.1,
    ) -> None:
        if min(size) < 2:
            raise ValueError(f"size must be at least 2 pixels, got {list(size)}")
        check_fraction("probability", probability)
        check_fraction("min_area_left", min_area_left)
        if not 0 < center_range[0] <= center_range[1] < 1:
            raise ValueError(f"center_range must be two shares in (0, 1), ascending, got {list(center_range)}")
        self.size = size
        self.probability = probability
        self.center_range = center_range
        self.min_area_left = min_area_left

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Others) -> Sample:
        if rng.random() >= self.probability:
            return sample
        height, width = self.size
        low, high = self.center_range
        y = int(np.clip(round(height * rng.uniform(low, high)), 1, height - 1))
        x = int(np.clip(round(width * rng.uniform(low, high)), 1, width - 1))
        windows = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
        canvas = np.empty((height, width, 3), np.uint8)
        parts = []
        for part, (x1, y1, x2, y2) in zip((sample, *others(3)), windows, strict=True):
            filled = _filling(part, y2 - y1, x2 - x1, rng, self.min_area_left)
            canvas[y1:y2, x1:x2] = filled.image
            parts.append(shift(filled, canvas, x1, y1))
        return _together(parts, sample)


@TRANSFORMS.register
class MixUp(Transform):
    """Lays another image over this one, half transparent, and keeps the objects of both (https://arxiv.org/abs/1902.04103).

    Args:
        probability: of mixing; other samples pass as they are.
        alpha: of the beta distribution Beta(alpha, alpha) that this image's share of the light is drawn from.
    """

    def __init__(self, *, probability: float = 0.5, alpha: float = 1.5) -> None:
        check_fraction("probability", probability)
        if alpha <= 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        self.probability = probability
        self.alpha = alpha

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Others) -> Sample:
        if rng.random() >= self.probability:
            return sample
        share = float(rng.beta(self.alpha, self.alpha))
        (other,) = others(1)
        height, width = sample.image.shape[:2]
        other = _filling(other, height, width, rng, min_area_left=0.0)
        image = opencv().addWeighted(sample.image, share, other.image, 1.0 - share, 0.0)
        return _together([sample, replace(other, image=image)], sample)


@TRANSFORMS.register
class CopyPaste(Transform):
    """Pastes some objects of another image, cut out along their masks (https://arxiv.org/abs/2012.07177).

    What lies under a pasted object loses those pixels; an object of which too little is seen is dropped.

    Args:
        probability: of pasting; other samples pass as they are.
        max_objects: how many objects are pasted at most.
        min_visible: objects of which less than this share of their mask is still seen are dropped.
    """

    reads = frozenset({"masks"})

    def __init__(self, *, probability: float = 0.5, max_objects: int = 20, min_visible: float = 0.1) -> None:
        check_fraction("probability", probability)
        check_fraction("min_visible", min_visible)
        if max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, got {max_objects}")
        self.probability = probability
        self.max_objects = max_objects
        self.min_visible = min_visible

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Others) -> Sample:
        if sample.masks is None:
            raise UserError(
                "CopyPaste cuts objects out along their masks, but the data set brings none; set masks: true in the data "
                "set, or take CopyPaste out of the transforms"
            )
        if rng.random() >= self.probability:
            return sample
        (source,) = others(1)
        height, width = sample.image.shape[:2]
        source = _cut(flip(source) if rng.random() < 0.5 else source, height, width, rng, min_area_left=0.0)
        count = min(len(source.boxes), self.max_objects)
        if not count:
            return sample
        number = int(rng.integers(1, count + 1))
        chosen = np.sort(rng.permutation(len(source.boxes))[:number])
        return self._paste(sample, _with_masks_inside(_chosen(source, chosen)))

    def _paste(self, sample: Sample, source: Sample) -> Sample:
        assert sample.masks is not None and source.masks is not None
        height, width = source.image.shape[:2]
        covered = np.zeros(sample.image.shape[:2], bool)  # [height, width]
        for mask in source.masks:
            raster = mask.raster(height, width)
            x1, y1, x2, y2 = raster.window
            covered[y1:y2, x1:x2] |= raster.pixels.astype(bool)
        image = np.where(covered[..., None], source.image, sample.image)
        below = _uncovered(replace(sample, image=image), covered, self.min_visible)
        return _together([below, replace(source, image=image)], sample)


def _filling(sample: Sample, height: int, width: int, rng: np.random.Generator, min_area_left: float) -> Sample:
    """A cut of the sample that fills a window, masks cut too."""
    return _with_masks_inside(_cut(sample, height, width, rng, min_area_left))


def _cut(sample: Sample, height: int, width: int, rng: np.random.Generator, min_area_left: float) -> Sample:
    """The sample scaled until it covers a window, and a random cut of it of the window's size."""
    h, w = sample.image.shape[:2]
    scale = max(height / h, width / w)
    scaled = resize(sample, (max(height, round(h * scale)), max(width, round(w * scale))))
    y = int(rng.integers(scaled.image.shape[0] - height + 1))
    x = int(rng.integers(scaled.image.shape[1] - width + 1))
    return crop(scaled, x, y, width, height, min_area_left)


def _with_masks_inside(sample: Sample) -> Sample:
    """A mask may reach out of its image; beside or in another image it must not."""
    if sample.masks is None:
        return sample
    height, width = sample.image.shape[:2]
    at_edge = np.any(sample.boxes[:, :2] <= 0, axis=1) | np.any(sample.boxes[:, 2:] >= (width, height), axis=1)
    masks = [
        _bitmap(mask.raster(height, width)) if reaches else mask
        for mask, reaches in zip(sample.masks, at_edge.tolist(), strict=True)
    ]
    return replace(sample, masks=masks)


def _chosen(sample: Sample, index: np.ndarray) -> Sample:
    """Some of the sample's objects."""
    return replace(
        sample,
        boxes=sample.boxes[index],
        classes=sample.classes[index],
        masks=None if sample.masks is None else [sample.masks[i] for i in index.tolist()],
        keypoints=None if sample.keypoints is None else sample.keypoints[index],
    )


def _bitmap(raster: Raster) -> BitmapMask:
    return BitmapMask.of(raster.pixels).moved((1.0, 1.0), (float(raster.x), float(raster.y)))


def _uncovered(sample: Sample, covered: np.ndarray, min_visible: float) -> Sample:
    """The sample whose objects lose the pixels [h, w] that are covered, boxes and keypoints with them."""
    assert sample.masks is not None
    height, width = covered.shape
    keep, boxes, masks = [], sample.boxes.copy(), list(sample.masks)
    for i, mask in enumerate(sample.masks):
        x1, y1, x2, y2 = mask.window(height, width)
        hidden = covered[y1:y2, x1:x2]
        if not hidden.any():  # most objects of an image: they are not drawn
            keep.append(i)
            continue
        pixels = mask.raster(height, width).pixels.astype(bool)
        if not (pixels & hidden).any():
            keep.append(i)
            continue
        left = pixels & ~hidden
        if left.sum() < max(1, min_visible * pixels.sum()):
            continue
        keep.append(i)
        masks[i] = _bitmap(Raster(left.astype(np.uint8), x1, y1))
        boxes[i] = masks[i].bounds(height, width)
    points = sample.keypoints
    if points is not None:
        at = points[..., :2].astype(int).clip(0, [width - 1, height - 1])  # [G, J, 2]
        hidden = covered[at[..., 1], at[..., 0]] & (points[..., 2] > 0)
        points = np.where(hidden[..., None], np.array([1, 1, 0]) * points + np.array([0, 0, 1]), points).astype(
            np.float32
        )
    return _chosen(replace(sample, boxes=boxes, masks=masks, keypoints=points), np.array(keep, np.int64))


def _together(parts: Sequence[Sample], first: Sample) -> Sample:
    """The objects of all parts in the image of the last, under the name of the first image."""
    image = parts[-1].image
    masks = None if first.masks is None else [mask for part in parts for mask in part.masks or ()]
    points = [part.keypoints for part in parts if part.keypoints is not None]
    return replace(
        first,
        image=image,
        boxes=np.concatenate([part.boxes for part in parts]),
        classes=np.concatenate([part.classes for part in parts]),
        masks=masks,
        keypoints=np.concatenate(points) if first.keypoints is not None else None,
        proposals=None,
    )
