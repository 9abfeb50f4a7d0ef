"""The map of the data: samples, data sets, transforms, and their registries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from frcnn.config import Registry
from frcnn.data.masks import Mask


@dataclass(frozen=True)
class Category:
    """A class of objects.

    Args:
        id: in the annotation file.
        name: of the class.
        keypoints: names of its J keypoints, such as "left_eye"; none as a rule.
        skeleton: pairs of indices 0..J-1 that a picture joins by a line.
        frequency: of a long-tailed data set (LVIS): r, c or f, for rare, common and frequent.
    """

    id: int
    name: str
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    frequency: Literal["r", "c", "f"] | None = None


@dataclass(frozen=True)
class Sample:
    """One image and its objects.

    Args:
        image: [h, w, 3] uint8 RGB, EXIF orientation applied.
        boxes: [G, 4] float32, x1 y1 x2 y2 in pixels of `image`.
        classes: [G] int64 in 0..K-1.
        image_id: as in the annotation file.
        original_size: (h, w) of the file, before any transform.
        masks: G masks, which may reach out of the image; None where they were not asked for.
        keypoints: [G, J, 3] float32 x, y and visibility (0 not labelled, 1 hidden, 2 seen); None likewise.
        keypoint_mirror: [J], for each keypoint the one whose place it takes in a mirror; None without keypoints.
        proposals: [P, 4] float32 boxes that may hold an object, best first; None where the data set brings none.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    image_id: int
    original_size: tuple[int, int]
    masks: Sequence[Mask] | None = None
    keypoints: np.ndarray | None = None
    keypoint_mirror: np.ndarray | None = None
    proposals: np.ndarray | None = None


@dataclass(frozen=True)
class GroundTruth:
    """What an evaluator compares detections with: every object of every image, crowds included, in columns.

    Args:
        categories: K categories; class k is `categories[k]`.
        image_ids: [n] int64, in the order of the data set. Two images of data sets put together may have the same one:
            objects name their image by its place, and evaluators, which join detections by id, refuse such a set.
        image_sizes: [n, 2] int64 (h, w) of the files.
        image_index: [m] int64, which of the n images each object is in; ascending.
        classes: [m] int64 in 0..K-1.
        boxes: [m, 4] float64, x1 y1 x2 y2 in pixels of the files.
        areas: [m] float64, in square pixels: of the mask where the file gives it, else of the box.
        iscrowd: [m] bool.
        segmentation: gives the polygons, the RLE or None of object 0..m-1 as the file has it; None where the data set
            has no segmentation at all.
        keypoints: [m, J, 3] float64 x, y, visibility, in the coordinates of boxes: where a file gives the pixel that a
            point lies in, half a pixel has been added. None where the data set has none or none were asked for.
        difficult: [m] bool, objects that Pascal VOC counts neither as found nor as missed; None where none is marked.
        absent_classes: of each of the n images, the classes that people looked for and did not find (LVIS:
            neg_category_ids); None where every class was looked for in every image.
        unfinished_classes: of each of the n images, the classes of which not every object is annotated (LVIS:
            not_exhaustive_category_ids); None where there are none.
    """

    categories: Sequence[Category]
    image_ids: np.ndarray
    image_sizes: np.ndarray
    image_index: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    iscrowd: np.ndarray
    segmentation: Callable[[int], Any] | None = None
    keypoints: np.ndarray | None = None
    difficult: np.ndarray | None = None
    absent_classes: Sequence[Sequence[int]] | None = None
    unfinished_classes: Sequence[Sequence[int]] | None = None


class Dataset:
    """Samples by index, and the categories of their classes in order."""

    categories: Sequence[Category]
    provides: frozenset[str] = frozenset()
    """What its samples bring beside boxes and classes: "masks", "keypoints", "proposals"."""

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__()")

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__()")

    @property
    def image_sizes(self) -> np.ndarray:
        """[n, 2] (h, w) of every image, known without decoding any."""
        raise NotImplementedError(f"{type(self).__name__} must define image_sizes")

    def ground_truth(self) -> GroundTruth:
        """What an evaluator compares detections with."""
        raise NotImplementedError(f"{type(self).__name__} must define ground_truth()")


class Transform:
    """(sample, rng, others) -> sample.

    `others(n)` gives n further samples of the data set, drawn with the same key, for transforms that mix images.
    """

    reads: frozenset[str] = frozenset()
    """What samples must bring for it beside boxes and classes, as in `Dataset.provides`."""

    def __call__(self, sample: Sample, rng: np.random.Generator, others: Callable[[int], list[Sample]]) -> Sample:
        raise NotImplementedError(f"{type(self).__name__} must define __call__()")


class ImageSampler:
    """(dataset) | (rng) -> [n] indices of the images of one epoch, in their order."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @property
    def epoch_size(self) -> float:
        """How many images an epoch has on average."""
        return float(len(self.dataset))

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define __call__()")


DATASETS = Registry(Dataset)
TRANSFORMS = Registry(Transform)
IMAGE_SAMPLERS = Registry(ImageSampler, wiring=("dataset",))
