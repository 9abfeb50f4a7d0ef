"""Detections and ground truth held against each other before anything is counted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from frcnn.data.roles import GroundTruth
from frcnn.errors import UserError
from frcnn.evaluation.columns import DetectionColumns
from frcnn.structures import Detections


def require_distinct_image_ids(ground_truth: GroundTruth) -> None:
    """Detections are joined with the ground truth by image id: no two images may share one.

    Raises:
        UserError: some do, as in data sets put together that each count from 1.
    """
    ids, counts = np.unique(ground_truth.image_ids, return_counts=True)
    shared = ids[counts > 1]
    if len(shared):
        raise UserError(
            f"{len(shared)} image ids are those of several images of the data set (the first: {shared[0]}), so their detections"
            " cannot be told apart; give each part of a ConcatDataset an entry of its own under data.test"
        )


def checked_columns(
    ground_truth: GroundTruth, detections: Mapping[int, Detections]
) -> tuple[DetectionColumns, list[str]]:
    """The detections that can be evaluated, and what there is to say of the others.

    Raises:
        UserError: detections name images or classes that the data set does not have, or images of it share an id.
    """
    require_distinct_image_ids(ground_truth)
    known = set(ground_truth.image_ids.tolist())
    unknown = [image_id for image_id in detections if image_id not in known]
    if unknown:
        raise UserError(
            f"{len(unknown)} of the {len(detections)} images with detections are not among the {len(known)} images of"
            f" the data set (the first: image id {unknown[0]}; ids of the data set: {_some(ground_truth.image_ids)});"
            " are these the detections of another data set?"
        )
    columns, notes = DetectionColumns.of(detections), []
    finite = columns.is_finite()
    if not finite.all():
        notes.append(f"{(~finite).sum()} of {len(columns)} detections hold NaN or infinite numbers and were left out")
        columns = columns.where(finite)
    num_classes = len(ground_truth.categories)
    outside = (columns.classes < 0) | (columns.classes >= num_classes)
    if outside.any():
        raise UserError(
            f"a detection in image {columns.image_ids[outside][0]} is of class {columns.classes[outside][0]}, but the"
            f" data set has {num_classes} classes (0..{num_classes - 1}); was the detector made for other categories?"
        )
    if detections and len(detections) < len(known):
        notes.append(f"{len(known) - len(detections)} of {len(known)} images were not run; nothing is found in them")
    return columns, notes


def missing_ground_truth(ground_truth: GroundTruth) -> list[str]:
    """Why there is nothing to find, where that is so."""
    if not len(ground_truth.image_ids):
        return ["the data set has no images: there is nothing to measure"]
    if ground_truth.iscrowd.all():
        what = "only crowds" if len(ground_truth.iscrowd) else "no objects"
        return [f"the {len(ground_truth.image_ids)} images of the data set hold {what}: AP is not defined"]
    return []


def objects_per_class(ground_truth: GroundTruth) -> np.ndarray:
    """[K] int64, crowds not counted."""
    return np.bincount(ground_truth.classes[~ground_truth.iscrowd], minlength=len(ground_truth.categories))


def _some(ids: np.ndarray) -> str:
    return ", ".join(str(i) for i in ids[:3].tolist()) + (", ..." if len(ids) > 3 else "")
