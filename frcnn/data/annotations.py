"""The annotations of a data set as a columnar store: numpy arrays and offsets, shared by all workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from frcnn.data.annotation_checks import (
    OVERHANG_TOLERANCE,
    check_lists,
    describe_faults,
    find_faults,
    guess_box_format,
    keypoint_causes,
    look_up,
    name_of,
    overhang,
)
from frcnn.data.coco_json import CocoColumns, read_columns
from frcnn.data.keypoints import labelled_inside
from frcnn.data.masks import Mask
from frcnn.data.roles import Category, GroundTruth
from frcnn.data.segmentations import has_segmentation, read_masks, read_segmentation, segmentation_causes
from frcnn.data.shared import SharedArrays
from frcnn.errors import UserError

KeepOrDrop = Literal["keep", "drop"]
ErrorOrSkip = Literal["error", "skip"]


@dataclass(frozen=True)
class AnnotationStore:
    """All images and objects of an annotation file. Small to pickle: the columns lie in one shared file.

    The columns are, for n images and m objects sorted by image: `image_ids` [n], `image_sizes` [n, 2] (h, w), `names`
    and `name_offsets` [n + 1], `offsets` [n + 1] (the objects of image i are offsets[i] to offsets[i + 1]),
    `annotation_ids` [m], `classes` [m], `boxes` [m, 4] float64 x1 y1 x2 y2 as in the file, `areas` [m], `iscrowd` [m],
    `source` [m, 2], and where they were asked for `keypoints` [m, J, 3] float64.

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
        )

    def segmentation(self, annotation: int) -> Any:
        """Polygons, RLE or None of object 0..m-1. Until asked for, it stays in the file as bytes.

        Raises:
            UserError: the file has changed since it was read.
        """
        self._require_same_file()
        return read_segmentation(self.path, *self.columns["source"][annotation].tolist())

    def _require_same_file(self) -> None:
        if _version(self.path) != self.version:
            raise UserError(f"{self.path}: the file has changed since this run read it; start the run again")


def read_annotations(
    path: str,
    *,
    images_without_objects: KeepOrDrop = "keep",
    on_bad_annotation: ErrorOrSkip = "error",
    masks: bool = False,
    keypoints: bool = False,
) -> AnnotationStore:
    """Reads and checks a COCO JSON file.

    Args:
        path: the file.
        images_without_objects: "drop" leaves out images without an object to learn (none at all, or crowds only).
        on_bad_annotation: "skip" leaves out annotations that cannot be used, and counts them; "error" stops.
        masks: whether every object must have a segmentation that can be learnt.
        keypoints: whether to read keypoints.

    Raises:
        UserError: one message with file, annotation ids, values, what was expected, and what to do.
    """
    path = os.path.abspath(path)
    version = _version(path) if os.path.exists(path) else (0, 0)
    columns = read_columns(path, keypoints=keypoints)
    check_lists(columns, path)
    image_index = look_up(columns.annotation_image_ids, columns.image_ids)  # [m]
    classes = look_up(columns.annotation_category_ids, np.array([c.id for c in columns.categories]))  # [m]
    good, notes = _good_annotations(columns, image_index, classes, path, on_bad_annotation, masks)
    notes += _overhang_notes(columns, image_index, good)
    kept, drop_note = _kept_images(columns, image_index, good, path, images_without_objects)
    arrays = _sorted_arrays(columns, image_index, classes, good, kept)
    crowds = int(arrays["iscrowd"].sum())
    summary = (
        f"{len(kept):,} images, {len(arrays['classes']) - crowds:,} objects of {len(columns.categories)} classes, "
        f"{crowds:,} crowds; {drop_note}"
    )
    if crowds == len(arrays["classes"]):
        notes.append("not one object is left: there is nothing to learn here, and AP will be n/a")
    return AnnotationStore(
        path,
        version,
        columns.categories,
        SharedArrays.create(arrays),
        (summary, *notes),
        has_segmentation=has_segmentation(path, arrays["source"]),
    )


def _version(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _good_annotations(
    columns: CocoColumns,
    image_index: np.ndarray,
    classes: np.ndarray,
    path: str,
    on_bad_annotation: ErrorOrSkip,
    masks: bool,
) -> tuple[np.ndarray, list[str]]:
    """[m] bool, and a note on those left out."""
    readable = (image_index >= 0) & np.isfinite(columns.bboxes).all(axis=1)
    guess = guess_box_format(columns.bboxes[readable], columns.image_sizes[image_index[readable]])
    if guess:
        raise UserError(f"{path}: {guess}")
    further = keypoint_causes(columns) + (segmentation_causes(path, columns, image_index) if masks else [])
    faults = find_faults(columns, image_index, classes, further)
    good = np.ones(len(classes), bool)
    for fault in faults:
        good &= ~fault.mask
    if not faults:
        return good, []
    counts = f"{(~good).sum():,} of {len(good):,} annotations"
    if on_bad_annotation == "error":
        raise UserError(
            f"{path}: {counts} cannot be used: {describe_faults(columns, faults)}; correct the file, or set "
            "on_bad_annotation: skip to leave them out"
        )
    return good, [f"skipped {counts}: {describe_faults(columns, faults)}"]


def _overhang_notes(columns: CocoColumns, image_index: np.ndarray, good: np.ndarray) -> list[str]:
    by = overhang(columns.bboxes[good], columns.image_sizes[image_index[good]])
    far = np.flatnonzero(good)[by > OVERHANG_TOLERANCE]
    if not len(far):
        return []
    worst = int(np.flatnonzero(good)[by.argmax()])
    height, width = columns.image_sizes[image_index[worst]]
    return [
        f"clipped {len(far):,} boxes that reach out of their image by more than {OVERHANG_TOLERANCE:g} px; the "
        f"furthest, {by.max():.4g} px: {name_of(columns, worst)}: bbox {columns.bboxes[worst].tolist()} (x, y, width, "
        f"height) in {width} x {height}"
    ]


def _kept_images(
    columns: CocoColumns, image_index: np.ndarray, good: np.ndarray, path: str, images_without_objects: KeepOrDrop
) -> tuple[np.ndarray, str]:
    """Indices of the images of the data set, and a note on those without objects."""
    num_images = len(columns.image_ids)
    objects = np.bincount(image_index[good & ~columns.iscrowd], minlength=num_images)
    annotated = np.bincount(image_index[image_index >= 0], minlength=num_images)
    usable = np.bincount(image_index[good], minlength=num_images)
    without = objects == 0
    reasons = (
        f"{(annotated == 0).sum():,} have no annotation, {(without & (usable > 0)).sum():,} only crowds, "
        f"{((annotated > 0) & (usable == 0)).sum():,} only annotations that were skipped"
    )
    if images_without_objects == "keep":
        return np.arange(num_images), f"kept {without.sum():,} images without objects"
    if without.all():
        raise UserError(
            f"{path}: images_without_objects: drop leaves none of the {num_images:,} images: {reasons}; correct the "
            "file, or set images_without_objects: keep"
        )
    note = f"dropped {without.sum():,} of {num_images:,} images without objects"
    return np.flatnonzero(~without), f"{note}: {reasons}" if without.any() else note


def _sorted_arrays(
    columns: CocoColumns, image_index: np.ndarray, classes: np.ndarray, good: np.ndarray, kept: np.ndarray
) -> dict[str, np.ndarray]:
    """The columns of an AnnotationStore: objects of the kept images, in the order of the images."""
    new_index = np.full(len(columns.image_ids), -1)
    new_index[kept] = np.arange(len(kept))
    place = np.where(good, new_index[image_index], -1)  # [m]
    order = np.argsort(place, kind="stable")[(place < 0).sum() :]
    bboxes = columns.bboxes[order]
    areas = columns.areas[order]
    names, name_offsets = _encode([columns.file_names[image] for image in kept.tolist()])
    arrays = {
        "image_ids": columns.image_ids[kept],
        "image_sizes": columns.image_sizes[kept],
        "names": names,
        "name_offsets": name_offsets,
        "offsets": np.searchsorted(place[order], np.arange(len(kept) + 1)),
        "annotation_ids": columns.annotation_ids[order],
        "classes": classes[order],
        "boxes": np.concatenate([bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:]], axis=1),
        "areas": np.where(np.isfinite(areas), areas, bboxes[:, 2] * bboxes[:, 3]),
        "iscrowd": columns.iscrowd[order],
        "source": columns.source[order],
    }
    if columns.keypoints is not None:
        arrays["keypoints"] = columns.keypoints[order]
    return arrays


def _encode(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [name.encode() for name in names]
    offsets = np.concatenate([[0], np.cumsum([len(name) for name in encoded], dtype=np.int64)])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets
