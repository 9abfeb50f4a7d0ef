"""An annotation file read, checked, and sorted into an AnnotationStore."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

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
from frcnn.data.annotation_store import AnnotationStore, file_version
from frcnn.data.coco_json import CocoColumns, read_columns
from frcnn.data.federated import class_lists
from frcnn.data.segmentations import has_segmentation, segmentation_causes
from frcnn.data.shared import SharedArrays
from frcnn.errors import UserError

KeepOrDrop = Literal["keep", "drop"]
ErrorOrSkip = Literal["error", "skip"]


def read_annotations(
    path: str,
    *,
    images_without_objects: KeepOrDrop = "keep",
    on_bad_annotation: ErrorOrSkip = "error",
    masks: bool = False,
    keypoints: bool = False,
    min_keypoints: int = 0,
) -> AnnotationStore:
    """Reads and checks a COCO JSON file.

    Args:
        path: the file.
        images_without_objects: "drop" leaves out images without an object to learn (none at all, or crowds only).
        on_bad_annotation: "skip" leaves out annotations that cannot be used, and counts them; "error" stops.
        masks: whether every object must have a segmentation that can be learnt.
        keypoints: whether to read keypoints.
        min_keypoints: images whose objects have fewer labelled keypoints, all together, are left out.

    Raises:
        UserError: one message with file, annotation ids, values, what was expected, and what to do.
    """
    path = os.path.abspath(path)
    version = file_version(path) if os.path.exists(path) else (0, 0)
    columns = read_columns(path, keypoints=keypoints)
    check_lists(columns, path)
    image_index = look_up(columns.annotation_image_ids, columns.image_ids)  # [m]
    classes = look_up(columns.annotation_category_ids, np.array([c.id for c in columns.categories]))  # [m]
    good, notes = _good_annotations(columns, image_index, classes, path, on_bad_annotation, masks)
    notes += _overhang_notes(columns, image_index, good)
    kept, drop_note = _kept_images(columns, image_index, good, path, images_without_objects)
    if min_keypoints:
        kept, few_note = _images_with_keypoints(columns, image_index, good, kept, path, min_keypoints)
        drop_note = f"{drop_note}; {few_note}"
    arrays = _sorted_arrays(columns, image_index, classes, good, kept) | _searched_classes(columns, kept, path)
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


def _images_with_keypoints(
    columns: CocoColumns, image_index: np.ndarray, good: np.ndarray, kept: np.ndarray, path: str, min_keypoints: int
) -> tuple[np.ndarray, str]:
    """Those of the kept images that have enough labelled keypoints, and a note on the others."""
    assert columns.keypoints is not None
    objects = good & ~columns.iscrowd
    labelled = (columns.keypoints[objects, :, 2] > 0).sum(axis=1)  # of each object
    enough = np.bincount(image_index[objects], labelled, len(columns.image_ids))[kept] >= min_keypoints
    if not enough.any():
        raise UserError(
            f"{path}: min_keypoints_per_image: {min_keypoints} leaves none of the {len(kept):,} images: "
            "none has so many labelled keypoints (visibility 1 or 2); ask for fewer, or correct the file"
        )
    return kept[enough], f"dropped {(~enough).sum():,} with fewer than {min_keypoints} labelled keypoints"


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
    if columns.difficult.any():
        arrays["difficult"] = columns.difficult[order]
    return arrays


def _searched_classes(columns: CocoColumns, kept: np.ndarray, path: str) -> dict[str, np.ndarray]:
    """What the kept images were searched for, where the file says so."""
    category_ids, image_ids = [category.id for category in columns.categories], columns.image_ids[kept].tolist()
    arrays: dict[str, np.ndarray] = {}
    for name, lists in (("absent", columns.absent), ("unfinished", columns.unfinished)):
        if lists is not None:
            arrays |= class_lists(name, [lists[image] for image in kept.tolist()], category_ids, image_ids, path)
    return arrays


def _encode(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [name.encode() for name in names]
    offsets = np.concatenate([[0], np.cumsum([len(name) for name in encoded], dtype=np.int64)])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets
