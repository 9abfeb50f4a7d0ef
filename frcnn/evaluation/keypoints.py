"""Keypoints against keypoints, by COCO's object keypoint similarity (OKS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from frcnn.data.keypoints import PIXEL_CENTER
from frcnn.data.roles import GroundTruth
from frcnn.errors import UserError
from frcnn.evaluation.columns import DetectionColumns
from frcnn.evaluation.problem import CocoProblem, box_problem

_TENTHS = (0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89)
COCO_SIGMAS = tuple(sigma / 10 for sigma in _TENTHS)
"""How far apart people place each of COCO's 17 keypoints (nose, eyes, ears, shoulders, elbows, wrists, hips, knees,
ankles), relative to the square root of the object's area."""

EQUAL_SIGMA = 0.067
"""The mean of COCO's, for keypoints of which nobody measured how far apart people place them."""


def ground_truth_keypoints(ground_truth: GroundTruth) -> np.ndarray:
    """[m, J, 3].

    Raises:
        UserError: the data set has no keypoints.
    """
    if ground_truth.keypoints is None:
        raise UserError(
            "keypoints cannot be evaluated: the data set gives none; set keypoints: true in it, or leave keypoints out of the"
            " evaluator's tasks"
        )
    return ground_truth.keypoints


def oks_sigmas(num_keypoints: int, given: Sequence[float] | None) -> tuple[tuple[float, ...], list[str]]:
    """The sigma of each keypoint, and what a reader of the numbers must know of them.

    Args:
        num_keypoints: J.
        given: J sigmas, or None for COCO's where J is 17, and equal ones otherwise.

    Raises:
        UserError: the number given is not J.
    """
    if given is not None:
        if len(given) != num_keypoints:
            raise UserError(
                f"evaluator.oks_sigmas has {len(given)} numbers, but objects have {num_keypoints} keypoints; give one for"
                " each"
            )
        return tuple(given), []
    if num_keypoints == len(COCO_SIGMAS):
        return COCO_SIGMAS, []
    return (EQUAL_SIGMA,) * num_keypoints, [
        f"keypoints were compared with an equal sigma of {EQUAL_SIGMA} for all {num_keypoints}, since they are not COCO's"
        " 17: set oks_sigmas of the evaluator if you know how far apart people place each"
    ]


def pixel_indices(keypoints: np.ndarray) -> np.ndarray:
    """[n, J, 3] in the coordinates of boxes -> [n, 3 J] as COCO's files have them: a point counts by the pixel it lies in,
    so the centre of the first pixel, 0.5, is 0."""
    return (keypoints - [PIXEL_CENTER, PIXEL_CENTER, 0]).reshape(len(keypoints), 3 * keypoints.shape[1])


def keypoint_problem(
    ground_truth: GroundTruth, columns: DetectionColumns, given_sigmas: Sequence[float] | None
) -> tuple[CocoProblem, list[str]]:
    """Keypoints against keypoints; objects without a labelled one are neither found nor missed.

    Raises:
        UserError: data set or detections have no keypoints, or not as many.
    """
    truth = ground_truth_keypoints(ground_truth)  # [m, J, 3]
    if columns.keypoints is None:
        raise UserError(
            "keypoints cannot be evaluated: the detections have none; add a keypoint branch to the model, or leave"
            " keypoints out of the evaluator's tasks"
        )
    num_keypoints = truth.shape[1]
    if len(columns) and columns.keypoints.shape[1] != num_keypoints:
        raise UserError(
            f"the model gives {columns.keypoints.shape[1]} keypoints, and the objects of the data set have {num_keypoints}"
        )
    sigmas, notes = oks_sigmas(num_keypoints, given_sigmas)
    problem = box_problem(ground_truth, columns, limits=(20,))
    labelled = (truth[:, :, 2] > 0).sum(axis=1)  # [m]
    flat = pixel_indices(truth).tolist()
    annotations = [
        {**annotation, "keypoints": points, "num_keypoints": count}
        for annotation, points, count in zip(problem.annotations, flat, labelled.tolist(), strict=True)
    ]
    shapes = pixel_indices(columns.keypoints).tolist()
    if len(labelled) and not labelled.any():
        notes.append("not one keypoint of the data set is labelled: AP of keypoints is not defined")
    return replace(problem, task="keypoints", annotations=annotations, shapes=shapes, oks_sigmas=sigmas), notes
