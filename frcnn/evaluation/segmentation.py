"""Masks against masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from frcnn.data.roles import GroundTruth
from frcnn.data.run_lengths import RunLengths
from frcnn.errors import UserError
from frcnn.evaluation.columns import DetectionColumns
from frcnn.evaluation.problem import CocoProblem, box_problem
from frcnn.ops.encoding import with_encoded_masks
from frcnn.structures import Detections


def encode_masks_of_images(detections: Mapping[int, Detections], ground_truth: GroundTruth) -> dict[int, Detections]:
    """Detections with their masks as run lengths; those of images that the data set does not have stay as they are.

    Args:
        detections: image id -> what was found in it.
        ground_truth: knows the sizes of the images.
    """
    sizes = dict(zip(ground_truth.image_ids.tolist(), ground_truth.image_sizes.tolist(), strict=True))
    return {
        image_id: with_encoded_masks(found, tuple(sizes[image_id])) if image_id in sizes else found
        for image_id, found in detections.items()
    }


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
