"""COCO's metrics of boxes, masks and keypoints (Lin et al., Microsoft COCO: Common Objects in Context, 2014)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from frcnn.data.roles import Dataset, GroundTruth
from frcnn.data.run_lengths import RunLengths, ground_truth_masks
from frcnn.evaluation.backends import Backend, check_backend, evaluate_with
from frcnn.evaluation.checks import checked_columns, missing_ground_truth, objects_per_class
from frcnn.evaluation.columns import DetectionColumns
from frcnn.evaluation.curves import KEYPOINT_METRICS, REGION_METRICS, Cut, PrecisionRecall, metrics_of
from frcnn.evaluation.diagnosis import DIAGNOSED_BELOW, diagnose
from frcnn.evaluation.keypoints import ground_truth_keypoints, keypoint_problem, oks_sigmas
from frcnn.evaluation.problem import CocoProblem, Task, box_problem
from frcnn.evaluation.roles import EVALUATORS, ClassMetrics, EvaluationResult, Evaluator, Metrics
from frcnn.evaluation.segmentation import encode_masks_of_images, mask_problem
from frcnn.evaluation.tasks import check_tasks, require_fields
from frcnn.structures import Detections

METRICS: Mapping[Task, Mapping[str, Cut]] = {
    "bbox": REGION_METRICS,
    "segm": REGION_METRICS,
    "keypoints": KEYPOINT_METRICS,
}
FOUND_FROM = 5.0
"""An AP of boxes, of 100, from which on objects are found: below it, what is missing on them says nothing yet."""

CLASS_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR@100", "AR")
"""What the table of classes shows, as far as the task has it."""


@EVALUATORS.register
class CocoEvaluator(Evaluator):
    """COCO's AP and AR of boxes, masks and keypoints, over IoU (or OKS) 0.50 to 0.95, by class and object size; in 0..100.

    Args:
        tasks: what is compared: bbox, segm (masks), keypoints; each gives metrics of its own, such as segm/AP.
        oks_sigmas: how far apart people place each keypoint, relative to the root of the object's area; null is COCO's
            where there are 17, and an equal one for all otherwise.
        backend: hotcoco is about 100 times as fast; pycocotools is the reference. Their numbers are the same.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        tasks: tuple[Literal["bbox", "segm", "keypoints"], ...] = ("bbox",),
        oks_sigmas: tuple[float, ...] | None = None,
        backend: Literal["hotcoco", "pycocotools"] = "hotcoco",
    ) -> None:
        super().__init__(dataset)
        check_tasks(tasks, allowed=tuple(METRICS))
        check_backend(backend)
        if oks_sigmas is not None and not all(sigma > 0 for sigma in oks_sigmas):
            raise ValueError(f"oks_sigmas must be positive, got {list(oks_sigmas)}")
        self.tasks: tuple[Task, ...] = tuple(tasks)
        self.oks_sigmas = oks_sigmas
        self.backend: Backend = backend
        self.metric_names = tuple(f"{task}/{name}" for task in self.tasks for name in METRICS[task])
        self._gt_masks: list[RunLengths] | None = None

    def check(self, detection_fields: Collection[str]) -> None:
        """See Evaluator."""
        require_fields(self.tasks, detection_fields)
        super().check(detection_fields)
        ground_truth = self.dataset.ground_truth()
        if "segm" in self.tasks:
            self._masks_of(ground_truth)
        if "keypoints" in self.tasks:
            oks_sigmas(ground_truth_keypoints(ground_truth).shape[1], self.oks_sigmas)

    def __call__(self, detections: Mapping[int, Detections], *, weights_loaded: bool | None = None) -> EvaluationResult:
        """See Evaluator.

        Raises:
            UserError: detections name images or classes that the data set does not have; a task asks for masks or
                keypoints that one of the two lacks.
        """
        ground_truth = self.dataset.ground_truth()
        if "segm" in self.tasks:
            detections = encode_masks_of_images(detections, ground_truth)
        columns, notes = checked_columns(ground_truth, detections)
        metrics: Metrics = {}
        per_class: list[ClassMetrics] = []
        for task in self.tasks:
            problem, task_notes = self._problem(task, ground_truth, columns)
            curves, backend_notes = evaluate_with(self.backend, problem)
            notes += [note for note in task_notes + backend_notes if note not in notes]
            metrics |= metrics_of(curves, METRICS[task], f"{task}/")
            per_class += class_metrics(ground_truth, curves, task)
        notes += missing_ground_truth(ground_truth)
        ap = metrics[f"{self.tasks[0]}/AP"]
        if ap is not None and ap < DIAGNOSED_BELOW:
            notes += diagnose(ground_truth, detections, weights_loaded=weights_loaded)
        else:
            notes += _far_behind(metrics, self.tasks)
        return EvaluationResult(metrics, per_class, notes)

    def _problem(
        self, task: Task, ground_truth: GroundTruth, columns: DetectionColumns
    ) -> tuple[CocoProblem, list[str]]:
        if task == "keypoints":
            return keypoint_problem(ground_truth, columns, self.oks_sigmas)
        if task == "segm":
            return mask_problem(ground_truth, self._masks_of(ground_truth), columns), []
        return box_problem(ground_truth, columns), []

    def _masks_of(self, ground_truth: GroundTruth) -> list[RunLengths]:
        """Read and rasterised once: a run evaluates many times, and run lengths are small."""
        if self._gt_masks is None:
            self._gt_masks = ground_truth_masks(ground_truth)
        return self._gt_masks


def _far_behind(metrics: Metrics, tasks: Sequence[Task]) -> list[str]:
    """Tasks that have almost no AP although the first one has: objects are found, but not what they look like."""
    first = metrics[f"{tasks[0]}/AP"]
    if first is None or first < FOUND_FROM:
        return []
    return [
        f"{task}/AP is almost 0 and {tasks[0]}/AP is {first:.1f}: the objects are found, but their {what} are not learnt, or"
        " the data set's are read in another way; look at the pictures of the detections"
        for task, what in (("segm", "masks"), ("keypoints", "keypoints"))
        if task in tasks[1:] and (ap := metrics[f"{task}/AP"]) is not None and ap < DIAGNOSED_BELOW
    ]


def class_metrics(ground_truth: GroundTruth, curves: PrecisionRecall, task: Task) -> list[ClassMetrics]:
    """One row a class."""
    shown = {name: cut for name, cut in METRICS[task].items() if name in CLASS_COLUMNS}
    num_objects = objects_per_class(ground_truth).tolist()
    return [
        ClassMetrics(category.name, num_objects[k], metrics_of(curves.of_class(k), shown), task)
        for k, category in enumerate(ground_truth.categories)
    ]
