"""COCO's bounding-box metrics (Lin et al., Microsoft COCO: Common Objects in Context, 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from frcnn.data.roles import Dataset, GroundTruth
from frcnn.errors import UserError
from frcnn.evaluation.backends import (
    CocoProblem,
    PrecisionRecall,
    evaluate_with_hotcoco,
    evaluate_with_pycocotools,
)
from frcnn.evaluation.columns import DetectionColumns
from frcnn.evaluation.diagnosis import diagnose
from frcnn.evaluation.roles import EVALUATORS, ClassMetrics, EvaluationResult, Evaluator, Metrics
from frcnn.structures import Detections

DIAGNOSED_BELOW = 0.1
"""An AP under this, of 100, means that something is wrong rather than that the detector is weak."""

ALL, SMALL, MEDIUM, LARGE = range(4)  # COCO's area ranges: all, below 32^2, 32^2..96^2, above 96^2 square pixels
AT_1, AT_10, AT_100 = range(3)  # COCO's limits on the detections of one class in one image
IOU_50, IOU_75 = 0, 5  # places of these thresholds in 0.50, 0.55, ..., 0.95
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR@1", "AR@10", "AR@100", "ARs", "ARm", "ARl")


@EVALUATORS.register
class CocoEvaluator(Evaluator):
    """COCO's AP and AR of boxes, over IoU 0.50 to 0.95, by class and object size; in 0..100.

    Args:
        backend: hotcoco is about 100 times as fast; pycocotools is the reference. Their numbers are the same.
    """

    metric_names = tuple(f"bbox/{name}" for name in NAMES)

    def __init__(self, dataset: Dataset, *, backend: Literal["hotcoco", "pycocotools"] = "hotcoco") -> None:
        super().__init__(dataset)
        if backend not in ("hotcoco", "pycocotools"):
            raise ValueError(f"backend must be hotcoco or pycocotools, got {backend!r}")
        self.backend = backend

    def __call__(self, detections: Mapping[int, Detections], *, weights_loaded: bool | None = None) -> EvaluationResult:
        """See Evaluator.

        Raises:
            UserError: detections name images or classes that the data set does not have.
        """
        ground_truth = self.dataset.ground_truth()
        columns, notes = _checked(ground_truth, detections)
        curves, backend_notes = self._curves(_problem(ground_truth, columns))
        metrics: Metrics = {f"bbox/{name}": value for name, value in _metrics(curves).items()}
        notes += backend_notes
        notes += _missing_ground_truth(ground_truth)
        ap = metrics["bbox/AP"]
        if ap is not None and ap < DIAGNOSED_BELOW:
            notes += diagnose(ground_truth, detections, weights_loaded=weights_loaded)
        return EvaluationResult(metrics, _per_class(ground_truth, curves), notes)

    def _curves(self, problem: CocoProblem) -> tuple[PrecisionRecall, list[str]]:
        if self.backend == "hotcoco":
            try:
                return evaluate_with_hotcoco(problem), []
            except ImportError as error:
                notes = [f"hotcoco cannot be imported ({error}): pycocotools took its place; same numbers, slower"]
                return evaluate_with_pycocotools(problem), notes
        return evaluate_with_pycocotools(problem), []


def _checked(ground_truth: GroundTruth, detections: Mapping[int, Detections]) -> tuple[DetectionColumns, list[str]]:
    """The detections that can be evaluated, and what there is to say of the others."""
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


def _problem(ground_truth: GroundTruth, columns: DetectionColumns) -> CocoProblem:
    """Ids of our own, counted from 1: pycocotools takes an annotation of id 0 for "not matched".

    Images are numbered in the order of their ids, because detections of equal scores are ranked in that order.
    """
    order = np.argsort(ground_truth.image_ids, kind="stable")  # [n]
    number = np.empty(len(order), dtype=np.int64)  # [n] of each image in the order of the data set
    number[order] = np.arange(1, len(order) + 1)
    boxes = ground_truth.boxes
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
    objects = zip(
        number[ground_truth.image_index].tolist(),
        (ground_truth.classes + 1).tolist(),
        xywh,
        ground_truth.areas.tolist(),
        ground_truth.iscrowd.tolist(),
        strict=True,
    )
    detection_numbers = np.searchsorted(ground_truth.image_ids[order], columns.image_ids) + 1
    return CocoProblem(
        images=[
            {"id": image_number, "height": h, "width": w}
            for image_number, (h, w) in zip(number.tolist(), ground_truth.image_sizes.tolist(), strict=True)
        ],
        annotations=[
            {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": int(crowd)}
            for i, (image, category, box, area, crowd) in enumerate(objects, start=1)
        ],
        categories=[{"id": k, "name": category.name} for k, category in enumerate(ground_truth.categories, start=1)],
        rows=np.column_stack([detection_numbers, columns.boxes_xywh(), columns.scores, columns.classes + 1]),
    )


def _metrics(curves: PrecisionRecall) -> Metrics:
    precision, recall = curves.precision, curves.recall  # [T, R, K, A, M], [T, K, A, M]
    return {
        "AP": _mean(precision[..., ALL, AT_100]),
        "AP50": _mean(precision[IOU_50, ..., ALL, AT_100]),
        "AP75": _mean(precision[IOU_75, ..., ALL, AT_100]),
        "APs": _mean(precision[..., SMALL, AT_100]),
        "APm": _mean(precision[..., MEDIUM, AT_100]),
        "APl": _mean(precision[..., LARGE, AT_100]),
        "AR@1": _mean(recall[..., ALL, AT_1]),
        "AR@10": _mean(recall[..., ALL, AT_10]),
        "AR@100": _mean(recall[..., ALL, AT_100]),
        "ARs": _mean(recall[..., SMALL, AT_100]),
        "ARm": _mean(recall[..., MEDIUM, AT_100]),
        "ARl": _mean(recall[..., LARGE, AT_100]),
    }


def _per_class(ground_truth: GroundTruth, curves: PrecisionRecall) -> list[ClassMetrics]:
    num_objects = np.bincount(ground_truth.classes[~ground_truth.iscrowd], minlength=len(ground_truth.categories))
    rows = []
    for k, category in enumerate(ground_truth.categories):
        of_class = PrecisionRecall(curves.precision[:, :, k : k + 1], curves.recall[:, k : k + 1])
        metrics = _metrics(of_class)
        shown = {name: metrics[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR@100")}
        rows.append(ClassMetrics(category.name, int(num_objects[k]), shown))
    return rows


def _mean(values: np.ndarray) -> float | None:
    """The mean, in 0..100, over what exists; None where nothing does."""
    existing = values[values > -1]
    return 100.0 * float(np.mean(existing)) if existing.size else None


def _missing_ground_truth(ground_truth: GroundTruth) -> list[str]:
    if not len(ground_truth.image_ids):
        return ["the data set has no images: there is nothing to measure"]
    if ground_truth.iscrowd.all():
        what = "only crowds" if len(ground_truth.iscrowd) else "no objects"
        return [f"the {len(ground_truth.image_ids)} images of the data set hold {what}: AP is not defined"]
    return []


def _some(ids: np.ndarray) -> str:
    return ", ".join(str(i) for i in ids[:3].tolist()) + (", ..." if len(ids) > 3 else "")
