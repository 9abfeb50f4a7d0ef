"""LVIS's metrics (Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, 2019)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from frcnn.data.roles import Dataset, GroundTruth
from frcnn.data.run_lengths import RunLengths, ground_truth_masks
from frcnn.errors import UserError
from frcnn.evaluation.backends import evaluate_with_hotcoco
from frcnn.evaluation.checks import checked_columns, missing_ground_truth, objects_per_class
from frcnn.evaluation.columns import DetectionColumns
from frcnn.evaluation.curves import ALL_IOU, IOU_50, IOU_75, Cut, PrecisionRecall, metrics_of
from frcnn.evaluation.diagnosis import DIAGNOSED_BELOW, diagnose
from frcnn.evaluation.problem import CocoProblem, Task, box_problem
from frcnn.evaluation.roles import EVALUATORS, ClassMetrics, EvaluationResult, Evaluator, Metrics
from frcnn.evaluation.segmentation import encode_masks_of_images, mask_problem
from frcnn.evaluation.tasks import check_tasks, require_fields
from frcnn.structures import Detections

LIMIT = 300
"""The most detections of an image that count."""

PRECISION: Mapping[str, Cut] = {
    "AP": Cut("precision", ALL_IOU, 0, 0),
    "AP50": Cut("precision", IOU_50, 0, 0),
    "AP75": Cut("precision", IOU_75, 0, 0),
    "APs": Cut("precision", ALL_IOU, 1, 0),
    "APm": Cut("precision", ALL_IOU, 2, 0),
    "APl": Cut("precision", ALL_IOU, 3, 0),
}
RECALL: Mapping[str, Cut] = {
    "AR@300": Cut("recall", ALL_IOU, 0, 0),
    "ARs": Cut("recall", ALL_IOU, 1, 0),
    "ARm": Cut("recall", ALL_IOU, 2, 0),
    "ARl": Cut("recall", ALL_IOU, 3, 0),
}
FREQUENCIES = ("r", "c", "f")
NAMES = (*PRECISION, *(f"AP{frequency}" for frequency in FREQUENCIES), *RECALL)


@EVALUATORS.register
class LVISEvaluator(Evaluator):
    """AP of boxes and masks over a large vocabulary of which each image was annotated in part; by hotcoco, in 0..100.

    In an image, detections of a class count as wrong only where people have looked for that class (it has objects there
    or is among neg_category_ids), and not where its objects are not all annotated (not_exhaustive_category_ids).
    APr, APc and APf are the means over rare, common and frequent classes (https://arxiv.org/abs/1908.03195); a class of
    which the file does not say how frequent it is counts in AP alone, and a note names it.

    Args:
        tasks: what is compared: bbox, segm (masks).
    """

    def __init__(self, dataset: Dataset, *, tasks: tuple[Literal["bbox", "segm"], ...] = ("bbox",)) -> None:
        super().__init__(dataset)
        check_tasks(tasks, allowed=("bbox", "segm"))
        self.tasks: tuple[Task, ...] = tuple(tasks)
        self.metric_names = tuple(f"{task}/{name}" for task in self.tasks for name in NAMES)
        self._gt_masks: list[RunLengths] | None = None

    def check(self, detection_fields: Collection[str]) -> None:
        """See Evaluator."""
        require_fields(self.tasks, detection_fields)
        super().check(detection_fields)
        ground_truth = self.dataset.ground_truth()
        _require_federated(ground_truth)
        if "segm" in self.tasks:
            self._masks_of(ground_truth)

    def __call__(self, detections: Mapping[int, Detections], *, weights_loaded: bool | None = None) -> EvaluationResult:
        """See Evaluator.

        Raises:
            UserError: the data set does not say what was looked for, hotcoco is missing, or see CocoEvaluator.
        """
        ground_truth = self.dataset.ground_truth()
        _require_federated(ground_truth)
        if "segm" in self.tasks:
            detections = encode_masks_of_images(detections, ground_truth)
        columns, notes = checked_columns(ground_truth, detections)
        columns = best_of_each_image(columns, LIMIT)
        metrics: Metrics = {}
        per_class: list[ClassMetrics] = []
        for task in self.tasks:
            curves = _curves(self._problem(task, ground_truth, columns))
            metrics |= _metrics(ground_truth, curves, f"{task}/")
            per_class += _per_class(ground_truth, curves, task)
        notes += missing_ground_truth(ground_truth) + _without_frequency(ground_truth)
        ap = metrics[f"{self.tasks[0]}/AP"]
        if ap is not None and ap < DIAGNOSED_BELOW:
            notes += diagnose(ground_truth, detections, weights_loaded=weights_loaded)
        return EvaluationResult(metrics, per_class, notes)

    def _problem(self, task: Task, ground_truth: GroundTruth, columns: DetectionColumns) -> CocoProblem:
        if task == "segm":
            return _federated(ground_truth, mask_problem(ground_truth, self._masks_of(ground_truth), columns))
        return _federated(ground_truth, box_problem(ground_truth, columns))

    def _masks_of(self, ground_truth: GroundTruth) -> list[RunLengths]:
        if self._gt_masks is None:
            self._gt_masks = ground_truth_masks(ground_truth)
        return self._gt_masks


def best_of_each_image(columns: DetectionColumns, limit: int) -> DetectionColumns:
    """At most `limit` detections of each image, over all classes together, those of the highest scores."""
    order = np.lexsort((-columns.scores, columns.image_ids))  # [D], image after image, best first
    ids = columns.image_ids[order]
    rank = np.arange(len(ids)) - np.searchsorted(ids, ids)  # [D], place in its image
    return columns.at(np.sort(order[rank < limit]))


def _require_federated(ground_truth: GroundTruth) -> None:
    if ground_truth.absent_classes is None:
        raise UserError(
            "LVISEvaluator: the images of the data set have no neg_category_ids, so nobody knows which classes were looked"
            " for in them; use an annotation file of LVIS, or evaluator: {name: CocoEvaluator}"
        )


def _without_frequency(ground_truth: GroundTruth) -> list[str]:
    """Which classes none of APr, APc and APf counts."""
    names = [category.name for category in ground_truth.categories if category.frequency is None]
    if not names:
        return []
    return [
        f"{len(names):,} of {len(ground_truth.categories):,} categories have no frequency (r, c or f), such as "
        f"'{names[0]}': they count in AP, and in none of APr, APc and APf"
    ]


def _federated(ground_truth: GroundTruth, problem: CocoProblem) -> CocoProblem:
    """With what was looked for in each image, and how frequent each class is."""
    assert ground_truth.absent_classes is not None
    unfinished = ground_truth.unfinished_classes or [()] * len(problem.images)
    images = [
        {
            **image,
            "neg_category_ids": [int(k) + 1 for k in absent],
            "not_exhaustive_category_ids": [int(k) + 1 for k in part],
        }
        for image, absent, part in zip(problem.images, ground_truth.absent_classes, unfinished, strict=True)
    ]
    categories = [
        {**category, "frequency": known.frequency or "f"}
        for category, known in zip(problem.categories, ground_truth.categories, strict=True)
    ]
    return replace(problem, images=images, categories=categories, limits=(LIMIT,), federated=True)


def _curves(problem: CocoProblem) -> PrecisionRecall:
    try:
        return evaluate_with_hotcoco(problem)
    except ImportError as error:
        raise UserError(
            f"LVISEvaluator needs hotcoco, which cannot be imported ({error}); pip install hotcoco"
        ) from error


def _metrics(ground_truth: GroundTruth, curves: PrecisionRecall, prefix: str) -> Metrics:
    frequencies = np.array([category.frequency for category in ground_truth.categories])
    by_frequency = {
        f"{prefix}AP{frequency}": PRECISION["AP"].of(curves.of_classes(np.flatnonzero(frequencies == frequency)))
        for frequency in FREQUENCIES
    }
    return metrics_of(curves, PRECISION, prefix) | by_frequency | metrics_of(curves, RECALL, prefix)


def _per_class(ground_truth: GroundTruth, curves: PrecisionRecall, task: Task) -> list[ClassMetrics]:
    num_objects = objects_per_class(ground_truth).tolist()
    return [
        ClassMetrics(category.name, num_objects[k], metrics_of(curves.of_class(k), PRECISION), task)
        for k, category in enumerate(ground_truth.categories)
    ]
