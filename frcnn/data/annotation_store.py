"""The annotations of a data set as a columnar store: numpy arrays and offsets, shared by all workers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from frcnn.data.federated import lists_of
from frcnn.data.keypoints import labelled_inside
from frcnn.data.masks import Mask
from frcnn.data.roles import Category, GroundTruth
from frcnn.data.segmentations import read_masks, read_segmentation
from frcnn.data.shared import SharedArrays
from frcnn.errors import UserError


@dataclass(frozen=True)
class AnnotationStore:
    """All images and objects of an annotation file. Small to pickle: the columns lie in one shared file.

    The columns are, for n images and m objects sorted by image: `image_ids` [n], `image_sizes` [n, 2] (h, w), `names`
    and `name_offsets` [n + 1], `offsets` [n + 1] (the objects of image i are offsets[i] to offsets[i + 1]),
    `annotation_ids` [m], `classes` [m], `boxes` [m, 4] float64 x1 y1 x2 y2 as in the file, `areas` [m], `iscrowd` [m],
    `source` [m, 2], where they were asked for `keypoints` [m, J, 3] float64, and where the file has them `difficult` [m] and
    the lists of classes of federated.py.

    Args:
        path: the annotation file.
        version: its size and time of change when it was read.
        categories: K categories in the order of their ids; class k is `categories[k]`.
        columns: the arrays.
        notes: what a person should know of the reading: counts, and what was dropped or clipped.
        has_segmentation: whether at least one object has one.
    """

    path: str
    version: tuple[int, int]
    categories: tuple[Category, ...]
    columns: SharedArrays
    notes: tuple[str, ...]
    has_segmentation: bool

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def image_ids(self) -> np.ndarray:
        return self.columns["image_ids"]

    @property
    def image_sizes(self) -> np.ndarray:
        return self.columns["image_sizes"]

    @property
    def annotation_ids(self) -> np.ndarray:
        return self.columns["annotation_ids"]

    def file_name(self, image: int) -> str:
        start, stop = self.columns["name_offsets"][image : image + 2]
        return self.columns["names"][start:stop].tobytes().decode()

    def targets(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """What to learn of one image: its objects without crowds, clipped to the image.

        Returns:
            boxes [G, 4] float32 and classes [G] int64.
        """
        start, stop = self.columns["offsets"][image : image + 2]
        single = ~self.columns["iscrowd"][start:stop]
        height, width = self.image_sizes[image]
        boxes = self.columns["boxes"][start:stop][single].clip(0, [width, height, width, height])
        return boxes.astype(np.float32), self.columns["classes"][start:stop][single]

    def masks(self, image: int) -> list[Mask]:
        """The masks of the objects that `targets` gives, in its order. They are read from the file now.

        Raises:
            UserError: the file has changed since it was read, or a mask cannot be decoded.
        """
        self._require_same_file()
        start, stop = self.columns["offsets"][image : image + 2]
        index = start + np.flatnonzero(~self.columns["iscrowd"][start:stop])  # [G]
        names = [f"annotation {self.annotation_ids[i]} of image {self.image_ids[image]}" for i in index.tolist()]
        return read_masks(self.path, self.columns["source"][index], names)

    def keypoints(self, image: int) -> np.ndarray:
        """[G, J, 3] float32 of the objects that `targets` gives, in its order; 0, 0, 0 where not labelled."""
        start, stop = self.columns["offsets"][image : image + 2]
        single = ~self.columns["iscrowd"][start:stop]
        height, width = self.image_sizes[image].tolist()
        return labelled_inside(self.columns["keypoints"][start:stop][single], height, width)

    def ground_truth(self) -> GroundTruth:
        """Everything, crowds too, with boxes as in the file: AP is then what any other tool gives for that file."""
        columns = self.columns
        image_index = np.repeat(np.arange(len(self)), np.diff(columns["offsets"]))
        return GroundTruth(
            categories=self.categories,
            image_ids=self.image_ids,
            image_sizes=self.image_sizes,
            image_index=image_index,
            classes=columns["classes"],
            boxes=columns["boxes"],
            areas=columns["areas"],
            iscrowd=columns["iscrowd"],
            segmentation=self.segmentation if self.has_segmentation else None,
            keypoints=columns.get("keypoints"),
            difficult=columns.get("difficult"),
            absent_classes=lists_of("absent", columns),
            unfinished_classes=lists_of("unfinished", columns),
        )

    def segmentation(self, annotation: int) -> Any:
        """Polygons, RLE or None of object 0..m-1. Until asked for, it stays in the file as bytes.

        Raises:
            UserError: the file has changed since it was read.
        """
        self._require_same_file()
        return read_segmentation(self.path, *self.columns["source"][annotation].tolist())

    def _require_same_file(self) -> None:
        if file_version(self.path) != self.version:
            raise UserError(f"{self.path}: the file has changed since this run read it; start the run again")


def file_version(path: str) -> tuple[int, int]:
    """Size and time of change."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
