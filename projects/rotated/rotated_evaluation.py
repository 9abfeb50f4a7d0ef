"""COCO's metrics of rotated boxes. The matching is COCO's, step by step; only the IoU is another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from frcnn.config import import_file
from frcnn.data.roles import Dataset, GroundTruth
from frcnn.errors import UserError
from frcnn.evaluation.checks import checked_columns, missing_ground_truth
from frcnn.evaluation.coco import class_metrics
from frcnn.evaluation.columns import DetectionColumns
from frcnn.evaluation.curves import REGION_METRICS, PrecisionRecall, metrics_of
from frcnn.evaluation.roles import EVALUATORS, EvaluationResult, Evaluator
from frcnn.structures import Detections

ops = import_file(Path(__file__).with_name("rotated_boxes.py"))
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
LIMITS = (1, 10, 100)
AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # all, small, medium, large


@EVALUATORS.register
class RotatedEvaluator(Evaluator):
    """COCO's AP and AR over rotated IoU 0.50 to 0.95, by class and object size; in 0..100.

    For boxes at angle 0 the numbers are those of CocoEvaluator. Sizes are the areas in the file, or w x h.
    """

    metric_names = tuple(f"bbox/{name}" for name in REGION_METRICS)

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)

    def __call__(self, detections: Mapping[int, Detections], *, weights_loaded: bool | None = None) -> EvaluationResult:
        """See Evaluator.

        Raises:
            UserError: detections name images or classes that the data set does not have, or boxes are not of five numbers.
        """
        ground_truth = self.dataset.ground_truth()
        columns, notes = checked_columns(ground_truth, detections)
        for whose, boxes in (("data set's", ground_truth.boxes), ("detector's", columns.boxes)):
            if len(boxes) and boxes.shape[1] != 5:
                raise UserError(
                    f"RotatedEvaluator compares boxes of five numbers, cx cy w h angle; the {whose} have {boxes.shape[1]}"
                )
        of_class = [accumulate(judge_class(ground_truth, columns, k)) for k in range(len(ground_truth.categories))]
        precision, recall = (np.stack(values, axis=-3) for values in zip(*of_class, strict=True))
        curves = PrecisionRecall(precision, recall)  # [T, R, K, A, M], [T, K, A, M]
        notes = [*notes, *missing_ground_truth(ground_truth)]
        return EvaluationResult(
            metrics_of(curves, REGION_METRICS, "bbox/"), class_metrics(ground_truth, curves, "bbox"), notes
        )


class Judged(NamedTuple):
    """What became of the detections of one class in one image, best first.

    Args:
        scores: [D].
        matched: [A, T, D] bool, whether each is on an object.
        ignored: [A, T, D] bool, whether it counts neither as right nor as wrong.
        num_objects: [A], that are to be found.
    """

    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    num_objects: np.ndarray


def judge_class(ground_truth: GroundTruth, columns: DetectionColumns, k: int) -> list[Judged]:
    """The images with objects or detections of class k, in the order of their ids, which ranks equal scores."""
    judged = []
    of_class = columns.where(columns.classes == k)
    object_image_ids = ground_truth.image_ids[ground_truth.image_index]  # [m]
    for image_id in np.sort(ground_truth.image_ids).tolist():
        found = np.flatnonzero(of_class.image_ids == image_id)
        objects = np.flatnonzero((object_image_ids == image_id) & (ground_truth.classes == k))
        if not len(found) and not len(objects):
            continue
        found = found[np.argsort(-of_class.scores[found], kind="stable")][: LIMITS[-1]]
        boxes, gt_boxes = of_class.boxes[found].reshape(-1, 5), ground_truth.boxes[objects]
        crowd, areas = ground_truth.iscrowd[objects], ground_truth.areas[objects]
        iou = overlaps(gt_boxes, boxes, crowd)  # [G, D]
        judged.append(judge_image(iou, of_class.scores[found], boxes[:, 2] * boxes[:, 3], areas, crowd))
    return judged


def overlaps(gt_boxes: np.ndarray, boxes: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """[G, D]: the rotated IoU; with a crowd the part of the detection that lies in it, as COCO has it."""
    objects, found = torch.from_numpy(gt_boxes), torch.from_numpy(boxes)
    iou = ops.rotated_iou(objects, found).numpy()
    for g in np.flatnonzero(crowd).tolist():
        common = ops.paired_rotated_intersection(objects[g].expand(len(found), -1), found).numpy()
        iou[g] = common / np.maximum(boxes[:, 2] * boxes[:, 3], np.finfo(np.float64).tiny)
    return iou


def judge_image(
    iou: np.ndarray, scores: np.ndarray, areas: np.ndarray, gt_areas: np.ndarray, crowd: np.ndarray
) -> Judged:
    """Gives detections, best first, the objects of one image and class.

    Args:
        iou: [G, D].
        scores: [D], descending.
        areas: [D] of the detections, in square pixels.
        gt_areas: [G].
        crowd: [G] bool.
    """
    shape = (len(AREA_RANGES), len(THRESHOLDS), len(scores))
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    num_objects = np.zeros(len(AREA_RANGES), np.int64)
    for a, (low, high) in enumerate(AREA_RANGES):
        gt_ignored = crowd | (gt_areas < low) | (gt_areas > high)  # [G]
        num_objects[a] = (~gt_ignored).sum()
        outside = (areas < low) | (areas > high)  # [D]
        for t, threshold in enumerate(THRESHOLDS):
            gt = assign(iou, threshold, gt_ignored, crowd)  # [D]
            matched[a, t] = gt >= 0
            of_match = gt_ignored[gt] if len(gt_ignored) else np.zeros(len(gt), bool)
            ignored[a, t] = np.where(gt >= 0, of_match, outside)
    return Judged(scores, matched, ignored, num_objects)


def assign(iou: np.ndarray, threshold: float, gt_ignored: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """[D]: the object of each detection, -1 for none. Objects that count go first; crowds may be taken many times."""
    gt_of = np.full(iou.shape[1], -1, np.int64)
    taken = np.zeros(len(iou), bool)
    for d in range(iou.shape[1]):
        free = (iou[:, d] >= min(threshold, 1 - 1e-10)) & (~taken | crowd)
        for group in (free & ~gt_ignored, free & gt_ignored):
            choices = np.flatnonzero(group)
            if len(choices):
                overlap = iou[choices, d]
                gt_of[d] = choices[np.flatnonzero(overlap == overlap.max())[-1]]  # COCO takes the last of equals
                taken[gt_of[d]] = True
                break
    return gt_of


def accumulate(judged: Sequence[Judged]) -> tuple[np.ndarray, np.ndarray]:
    """Precision [T, R, A, M] and recall [T, A, M] of one class, -1 where there is no object to find."""
    shape = (len(THRESHOLDS), len(AREA_RANGES), len(LIMITS))
    precision, recall = -np.ones((shape[0], len(RECALLS), *shape[1:])), -np.ones(shape)
    if not judged:
        return precision, recall
    num_objects = np.sum([image.num_objects for image in judged], axis=0)  # [A]
    for m, limit in enumerate(LIMITS):
        scores = np.concatenate([image.scores[:limit] for image in judged])
        order = np.argsort(-scores, kind="stable")
        matched = np.concatenate([image.matched[..., :limit] for image in judged], axis=-1)[..., order]  # [A, T, D]
        ignored = np.concatenate([image.ignored[..., :limit] for image in judged], axis=-1)[..., order]
        right, wrong = (matched & ~ignored).cumsum(-1), (~matched & ~ignored).cumsum(-1)
        for a in np.flatnonzero(num_objects).tolist():
            for t in range(len(THRESHOLDS)):
                precision[t, :, a, m], recall[t, a, m] = curve(right[a, t], wrong[a, t], int(num_objects[a]))
    return precision, recall


def curve(right: np.ndarray, wrong: np.ndarray, num_objects: int) -> tuple[np.ndarray, float]:
    """The best precision at each of `RECALLS` or beyond, and the highest recall, from counts [D] of right and wrong."""
    if not len(right):
        return np.zeros(len(RECALLS)), 0.0
    recall = right / num_objects
    precision = right / (right + wrong + np.spacing(1))
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return best[np.searchsorted(recall, RECALLS, side="left")], float(recall[-1])
