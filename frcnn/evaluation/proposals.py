"""Recall of proposals: how many objects have a box on them, whatever it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from frcnn.data.known_categories import ANY_OBJECT
from frcnn.data.roles import Dataset, GroundTruth
from frcnn.evaluation.backends import Backend, check_backend, evaluate_with
from frcnn.evaluation.checks import checked_columns, missing_ground_truth
from frcnn.evaluation.curves import ALL_IOU, Cut, metrics_of
from frcnn.evaluation.diagnosis import DIAGNOSED_BELOW, diagnose
from frcnn.evaluation.problem import box_problem
from frcnn.evaluation.roles import EVALUATORS, EvaluationResult, Evaluator
from frcnn.structures import Detections

SIZES = ("", "s", "m", "l")  # in the order of COCO's area ranges


@EVALUATORS.register
class ProposalEvaluator(Evaluator):
    """Average recall of the best boxes of each image, classes ignored, over IoU 0.50 to 0.95; in 0..100.

    For a detector of proposals alone (`roi_heads: null`): its detections are the proposals. Metrics are
    box_proposals/AR@100, ARs@100, ... for each limit and size of object, as COCO counts them with useCats 0
    (Hosang et al., What makes for effective detection proposals?, https://arxiv.org/abs/1502.05082).

    Args:
        limits: how many boxes of an image count, best first; ascending.
        backend: hotcoco is about 100 times as fast; pycocotools is the reference. Their numbers are the same.
    """

    compares_classes = False

    def __init__(
        self,
        dataset: Dataset,
        *,
        limits: tuple[int, ...] = (100, 1000),
        backend: Literal["hotcoco", "pycocotools"] = "hotcoco",
    ) -> None:
        super().__init__(dataset)
        check_backend(backend)
        if not limits or limits[0] < 1 or list(limits) != sorted(set(limits)):
            raise ValueError(f"limits must be ascending numbers of at least 1, got {list(limits)}")
        self.limits = tuple(limits)
        self.backend: Backend = backend
        self.cuts = {
            f"AR{size}@{limit}": Cut("recall", ALL_IOU, area, place)
            for place, limit in enumerate(self.limits)
            for area, size in enumerate(SIZES)
        }
        self.metric_names = tuple(f"box_proposals/{name}" for name in self.cuts)

    def __call__(self, detections: Mapping[int, Detections], *, weights_loaded: bool | None = None) -> EvaluationResult:
        """See Evaluator.

        Raises:
            UserError: detections name images or classes that the data set does not have.
        """
        ground_truth = self.dataset.ground_truth()
        columns, notes = checked_columns(ground_truth, detections)
        problem = box_problem(ground_truth, columns, limits=self.limits, by_class=False)
        curves, backend_notes = evaluate_with(self.backend, problem)
        metrics = metrics_of(curves, self.cuts, "box_proposals/")
        notes += backend_notes + missing_ground_truth(ground_truth)
        recall = metrics[self.metric_names[0]]
        if recall is not None and recall < DIAGNOSED_BELOW:
            one_class = {image_id: _of_one_class(found) for image_id, found in detections.items()}
            notes += diagnose(_objects(ground_truth), one_class, weights_loaded=weights_loaded)
        return EvaluationResult(metrics, (), notes)


def _of_one_class(found: Detections) -> Detections:
    return replace(found, classes=torch.zeros_like(found.classes))


def _objects(ground_truth: GroundTruth) -> GroundTruth:
    """The same objects, all of one class."""
    classes = np.zeros_like(ground_truth.classes)
    return replace(ground_truth, classes=classes, categories=[ANY_OBJECT])
