"""Masks of the ground truth as COCO's run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from frcnn.data.roles import GroundTruth
from frcnn.errors import UserError

RunLengths = dict[str, Any]
"""{"size": [h, w], "counts": bytes}."""


def ground_truth_masks(ground_truth: GroundTruth) -> list[RunLengths]:
    """The mask of each of the m objects.

    Raises:
        UserError: the data set, or an object in it, has no segmentation, or one that cannot be read.
    """
    if ground_truth.segmentation is None:
        raise UserError("masks cannot be evaluated: the data set has no segmentation; leave segm out of the evaluator")
    segmentations = [ground_truth.segmentation(i) for i in range(len(ground_truth.classes))]
    missing = [i for i, segmentation in enumerate(segmentations) if not segmentation]
    if missing:
        raise UserError(
            f"masks cannot be evaluated: {len(missing)} of the {len(segmentations)} objects have no segmentation (the"
            f" first: {_describe(ground_truth, missing[0])}); add it to the annotations, or leave segm out of the"
            " evaluator"
        )
    return [_run_lengths(ground_truth, i, segmentation) for i, segmentation in enumerate(segmentations)]


def object_mask(ground_truth: GroundTruth, i: int) -> np.ndarray:
    """[h, w] uint8 0 or 1, the mask of object i; empty where it has none.

    Raises:
        UserError: it cannot be read.
    """
    from pycocotools import mask

    segmentation = ground_truth.segmentation(i) if ground_truth.segmentation is not None else None
    if not segmentation:
        return np.zeros(ground_truth.image_sizes[ground_truth.image_index[i]].tolist(), np.uint8)
    return np.asarray(mask.decode(_run_lengths(ground_truth, i, segmentation)))


def _describe(ground_truth: GroundTruth, i: int) -> str:
    """Object i for a person who looks for it in the annotations."""
    image_id = ground_truth.image_ids[ground_truth.image_index[i]]
    name = ground_truth.categories[ground_truth.classes[i]].name
    corners = ", ".join(f"{value:g}" for value in ground_truth.boxes[i])
    return f"{name} in image {image_id}, box {corners}"


def _run_lengths(ground_truth: GroundTruth, i: int, segmentation: Any) -> RunLengths:
    from pycocotools import mask

    height, width = ground_truth.image_sizes[ground_truth.image_index[i]].tolist()
    try:
        if isinstance(segmentation, list):
            _check_polygons(segmentation)
            return mask.merge(mask.frPyObjects(segmentation, height, width))
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"its size is {segmentation['size']}, the image's is {[height, width]} (height, width)")
        if isinstance(segmentation["counts"], list):
            return mask.frPyObjects(segmentation, height, width)
        counts = segmentation["counts"]
        return {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"masks cannot be evaluated: the segmentation of {_describe(ground_truth, i)} cannot be read: {error};"
            " expected polygons [[x1, y1, x2, y2, ...], ...] or run lengths {size, counts}"
        ) from error


def _check_polygons(polygons: list[Any]) -> None:
    """pycocotools would take four numbers for a box, and others in silence."""
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(isinstance(value, int | float) for value in polygon):
            raise ValueError(f"{str(polygon)[:60]} is no list of numbers")
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers, where x and y of at least 3 points were expected")
