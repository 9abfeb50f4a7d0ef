"""Masks of the ground truth as COCO's run lengths, and the problem of masks against masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from frcnn.data.roles import GroundTruth
from frcnn.errors import UserError
from frcnn.evaluation.columns import DetectionColumns
from frcnn.evaluation.problem import CocoProblem, box_problem

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
            f" first: {describe_object(ground_truth, missing[0])}); add it to the annotations, or leave segm out of the"
            " evaluator"
        )
    return [_run_lengths(ground_truth, i, segmentation) for i, segmentation in enumerate(segmentations)]


def mask_problem(ground_truth: GroundTruth, gt_masks: Sequence[RunLengths], columns: DetectionColumns) -> CocoProblem:
    """Masks against masks.

    Args:
        ground_truth: m objects.
        gt_masks: of these objects.
        columns: detections with masks.

    Raises:
        UserError: the detections have no masks.
    """
    if columns.masks is None:
        raise UserError(
            "masks cannot be evaluated: the detections have none; add a mask branch to the model, or leave segm out of the"
            " evaluator"
        )
    problem = box_problem(ground_truth, columns)
    annotations = [
        {**annotation, "segmentation": mask} for annotation, mask in zip(problem.annotations, gt_masks, strict=True)
    ]
    return replace(problem, task="segm", annotations=annotations, shapes=columns.masks)


def describe_object(ground_truth: GroundTruth, i: int) -> str:
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
            f"masks cannot be evaluated: the segmentation of {describe_object(ground_truth, i)} cannot be read: {error};"
            " expected polygons [[x1, y1, x2, y2, ...], ...] or run lengths {size, counts}"
        ) from error


def _check_polygons(polygons: list[Any]) -> None:
    """pycocotools would take four numbers for a box, and others in silence."""
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(isinstance(value, int | float) for value in polygon):
            raise ValueError(f"{str(polygon)[:60]} is no list of numbers")
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers, where x and y of at least 3 points were expected")
