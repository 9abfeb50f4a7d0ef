"""Pascal VOC's metrics (Everingham et al., The Pascal Visual Object Classes Challenge, 2010)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from frcnn.data.roles import Dataset, GroundTruth
from frcnn.evaluation.checks import checked_columns, missing_ground_truth
from frcnn.evaluation.columns import DetectionColumns
from frcnn.evaluation.diagnosis import DIAGNOSED_BELOW, diagnose
from frcnn.evaluation.roles import EVALUATORS, ClassMetrics, EvaluationResult, Evaluator, Metrics
from frcnn.ops.boxes import box_iou
from frcnn.structures import Detections

THRESHOLDS = np.arange(50, 100, 5) / 100
"""IoU at which a box is on an object. VOC knows 0.5 alone; the others, as COCO has them, say how well boxes fit."""


@EVALUATORS.register
class VOCEvaluator(Evaluator):
    """Pascal VOC's AP: bbox/AP50 is VOC's number, bbox/AP75 and bbox/AP (the mean over IoU 0.50 to 0.95) go beyond; in 0..100.

    Detections go from the highest score to the lowest. Each belongs to the object of its class on which it lies best; it is
    right if the IoU is at least the threshold and the object is not taken. Difficult objects and crowds are neither found
    nor missed. Coordinates are continuous: a box of a VOC file, which names its first and last pixel counted from 1, must
    have been read as xmin - 1, ymin - 1, xmax, ymax.

    Args:
        metric: area under the curve of precision against recall (VOC 2010 and later), or its mean at 11_point
            recalls 0, 0.1, ..., 1 (VOC 2007).
    """

    metric_names = ("bbox/AP", "bbox/AP50", "bbox/AP75")

    def __init__(self, dataset: Dataset, *, metric: Literal["area", "11_point"] = "area") -> None:
        super().__init__(dataset)
        if metric not in ("area", "11_point"):
            raise ValueError(f"metric must be area or 11_point, got {metric!r}")
        self.metric = metric

    def __call__(self, detections: Mapping[int, Detections], *, weights_loaded: bool | None = None) -> EvaluationResult:
        """See Evaluator.

        Raises:
            UserError: detections name images or classes that the data set does not have.
        """
        ground_truth = self.dataset.ground_truth()
        columns, notes = checked_columns(ground_truth, detections)
        average = area_under_curve if self.metric == "area" else mean_at_11_recalls
        ap = np.full((len(ground_truth.categories), len(THRESHOLDS)), np.nan)  # [K, T], nan where there is no object
        rows = []
        for k, category in enumerate(ground_truth.categories):
            outcome = judge_class(ground_truth, columns, k)
            if outcome.num_objects:
                ap[k] = [100 * average(*outcome.curve(t)) for t in range(len(THRESHOLDS))]
            rows.append(ClassMetrics(category.name, outcome.num_objects, _named(ap[k : k + 1])))
        metrics = {f"bbox/{name}": value for name, value in _named(ap).items()}
        notes += missing_ground_truth(ground_truth)
        if metrics["bbox/AP50"] is not None and metrics["bbox/AP50"] < DIAGNOSED_BELOW:
            notes += diagnose(ground_truth, detections, weights_loaded=weights_loaded)
        return EvaluationResult(metrics, rows, notes)


@dataclass(frozen=True)
class ClassOutcome:
    """What became of the detections of one class, best first.

    Args:
        num_objects: that are to be found.
        right: [D, T] bool, at each IoU threshold.
        ignored: [D, T] bool, those on a difficult object.
    """

    num_objects: int
    right: np.ndarray
    ignored: np.ndarray

    def curve(self, threshold: int) -> tuple[np.ndarray, np.ndarray]:
        """Recall and precision, [n] each, after each detection that counts.

        Args:
            threshold: index of the IoU threshold.
        """
        right = self.right[:, threshold][~self.ignored[:, threshold]]  # [n]
        found = right.cumsum()
        return found / self.num_objects, found / np.arange(1, len(right) + 1)


def judge_class(ground_truth: GroundTruth, columns: DetectionColumns, k: int) -> ClassOutcome:
    """Goes through the detections of class k in the order of their scores."""
    of_class = columns.where(columns.classes == k)
    of_class = of_class.at(np.argsort(-of_class.scores, kind="stable"))
    objects = np.flatnonzero(ground_truth.classes == k)
    difficult = ground_truth.iscrowd[objects]
    if ground_truth.difficult is not None:
        difficult = difficult | ground_truth.difficult[objects]
    best, iou = _best_objects(ground_truth, of_class, objects)
    right = np.zeros((len(of_class), len(THRESHOLDS)), bool)  # [D, T]
    ignored = np.zeros_like(right)
    taken = np.zeros((len(objects), len(THRESHOLDS)), bool)
    for row, (place, overlap) in enumerate(zip(best.tolist(), iou.tolist(), strict=True)):
        on_it = overlap >= THRESHOLDS  # [T]
        if difficult[place : place + 1].any():
            ignored[row] = on_it
        elif on_it.any():
            right[row] = on_it & ~taken[place]
            taken[place] |= on_it
    return ClassOutcome(int((~difficult).sum()), right, ignored)


def _best_objects(
    ground_truth: GroundTruth, columns: DetectionColumns, objects: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the place in `objects` of the one of its image on which it lies best, and their IoU, [D] each."""
    best, iou = np.zeros(len(columns), np.int64), np.zeros(len(columns))
    image_ids = ground_truth.image_ids[ground_truth.image_index[objects]]  # [G]
    for image_id in np.intersect1d(image_ids, columns.image_ids).tolist():
        here, found = np.flatnonzero(image_ids == image_id), np.flatnonzero(columns.image_ids == image_id)
        overlaps = box_iou(torch.from_numpy(columns.boxes[found]), torch.from_numpy(ground_truth.boxes[objects[here]]))
        largest, place = overlaps.max(dim=1)  # [d] each
        iou[found], best[found] = largest.numpy(), here[place.numpy()]
    return best, iou


def area_under_curve(recall: np.ndarray, precision: np.ndarray) -> float:
    """The area under the curve of the best precision at this recall or a higher one, in 0..1."""
    if not len(recall):
        return 0.0
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * best).sum())


def mean_at_11_recalls(recall: np.ndarray, precision: np.ndarray) -> float:
    """The mean of the best precision at recalls of at least 0, 0.1, ..., 1, in 0..1."""
    return float(np.mean([precision[recall >= tenth / 10].max(initial=0.0) for tenth in range(11)]))


def _named(ap: np.ndarray) -> Metrics:
    """AP, AP50 and AP75 of [K, T], None where no class has an object."""
    existing = ap[~np.isnan(ap).any(axis=1)]
    if not len(existing):
        return {"AP": None, "AP50": None, "AP75": None}
    return {
        "AP": float(existing.mean()),
        "AP50": float(existing[:, 0].mean()),
        "AP75": float(existing[:, 5].mean()),
    }
