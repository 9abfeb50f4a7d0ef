"""Ground truth taken apart and put together: the classes of images, some images, several data sets."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from frcnn.data.roles import Category, GroundTruth


def images_by_class(ground_truth: GroundTruth) -> list[np.ndarray]:
    """For each of the K classes the images, ascending, that have an object of it; crowds not counted.

    Lists, because a table of images and classes would take a gigabyte for LVIS.
    """
    classes, images = _single(ground_truth)
    num_images = max(1, len(ground_truth.image_ids))
    pair = np.unique(classes * num_images + images)  # each pair of a class and an image once, by class
    first = np.searchsorted(pair, num_images * np.arange(len(ground_truth.categories) + 1))  # [K + 1]
    return [pair[start:stop] % num_images for start, stop in itertools.pairwise(first.tolist())]


def classes_by_image(ground_truth: GroundTruth) -> list[np.ndarray]:
    """For each of the n images the classes of its objects, crowds not counted."""
    classes, images = _single(ground_truth)
    order = np.argsort(images, kind="stable")
    first = np.searchsorted(images[order], np.arange(len(ground_truth.image_ids) + 1))  # [n + 1]
    return [classes[order[start:stop]] for start, stop in itertools.pairwise(first.tolist())]


def _single(ground_truth: GroundTruth) -> tuple[np.ndarray, np.ndarray]:
    """Classes and images [m] of the objects that are no crowds."""
    single = ~ground_truth.iscrowd
    return ground_truth.classes[single], ground_truth.image_index[single]


def selected(ground_truth: GroundTruth, images: np.ndarray) -> GroundTruth:
    """The ground truth of some images.

    Args:
        ground_truth: of all.
        images: [n] int64, ascending.
    """
    place = np.full(len(ground_truth.image_ids), -1)
    place[images] = np.arange(len(images))
    objects = np.flatnonzero(place[ground_truth.image_index] >= 0)  # [m]
    segmentation = ground_truth.segmentation
    columns = ("classes", "boxes", "areas", "iscrowd", "keypoints", "difficult")
    of_images = ("absent_classes", "unfinished_classes")
    chosen: dict[str, Any] = {
        name: value[objects] for name in columns if (value := getattr(ground_truth, name)) is not None
    }
    for name in of_images:
        if (value := getattr(ground_truth, name)) is not None:
            chosen[name] = [value[i] for i in images.tolist()]
    return dataclasses.replace(
        ground_truth,
        image_ids=ground_truth.image_ids[images],
        image_sizes=ground_truth.image_sizes[images],
        image_index=place[ground_truth.image_index[objects]],
        segmentation=None if segmentation is None else lambda i: segmentation(int(objects[i])),
        **chosen,
    )


def concatenated(parts: Sequence[GroundTruth], categories: Sequence[Category]) -> GroundTruth:
    """The ground truth of several data sets behind one another.

    Args:
        parts: of each, all with the same classes.
        categories: of the K classes.
    """
    first_image = np.cumsum([0, *(len(part.image_ids) for part in parts)])
    first_object = np.cumsum([0, *(len(part.classes) for part in parts)])

    def joined(name: str) -> np.ndarray | None:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else np.concatenate(values)

    def listed(name: str) -> list[Sequence[int]] | None:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else list(itertools.chain(*values))

    def segmentation(i: int) -> object:
        part = int(np.searchsorted(first_object, i, side="right")) - 1
        give = parts[part].segmentation
        return None if give is None else give(i - int(first_object[part]))

    return GroundTruth(
        categories=categories,
        image_ids=np.concatenate([part.image_ids for part in parts]),
        image_sizes=np.concatenate([part.image_sizes for part in parts]),
        image_index=np.concatenate([part.image_index + first_image[i] for i, part in enumerate(parts)]),
        classes=np.concatenate([part.classes for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        iscrowd=np.concatenate([part.iscrowd for part in parts]),
        segmentation=None if any(part.segmentation is None for part in parts) else segmentation,
        keypoints=joined("keypoints"),
        difficult=joined("difficult"),
        absent_classes=listed("absent_classes"),
        unfinished_classes=listed("unfinished_classes"),
    )
