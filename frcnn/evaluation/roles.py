"""The map of the evaluation: what judges detections, and what it answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from frcnn.config import Registry
from frcnn.data.roles import Dataset
from frcnn.evaluation.checks import require_distinct_image_ids
from frcnn.structures import Detections

Metrics = dict[str, float | None]
"""Name -> value in 0..100; None where the data set has no object that the metric speaks of."""


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one class.

    Args:
        name: of the class.
        num_objects: in the ground truth, crowds not counted.
        metrics: "AP", "AP50", ...
        task: what they are of: "bbox", "segm", "keypoints".
    """

    name: str
    num_objects: int
    metrics: Metrics
    task: str = "bbox"


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluator says of the detections of one data set.

    Args:
        metrics: "bbox/AP", "bbox/AP50", ...
        per_class: one row a class and task, in the order of the data set's categories.
        notes: sentences a person should read beside the numbers, such as why an AP is 0.
    """

    metrics: Metrics
    per_class: Sequence[ClassMetrics] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def table(self, max_classes: int = 100) -> str:
        """The numbers as aligned text: a summary, a row for each class, task by task, then the notes.

        Args:
            max_classes: with more classes than this, the rest are counted and not listed.
        """
        blocks = [_summary_table(self.metrics)]
        tasks = list(dict.fromkeys(row.task for row in self.per_class))
        for task in tasks:
            table = _class_table([row for row in self.per_class if row.task == task], max_classes)
            blocks.append(f"{task}\n{table}" if len(tasks) > 1 else table)
        if self.notes:
            blocks.append("\n".join(f"note: {note}" for note in self.notes))
        return "\n\n".join(blocks)


class Evaluator:
    """(dataset) | ({image id: Detections}) -> EvaluationResult. Judges the detections of one data set.

    Every image of the data set is evaluated, also those that the detections do not name. Detections are in the pixels
    of the original images.

    `metric_names` are the keys of the result's metrics, known before the first evaluation, so that a hook that watches
    one can refuse a wrong name at the start. `compares_classes` says that a box is only right if its class is: a detector
    that tells none apart can then be refused.
    """

    metric_names: tuple[str, ...] = ()
    compares_classes: bool = True

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def check(self, detection_fields: Collection[str]) -> None:
        """Asked once, before anything runs: do the model and the data set have what these metrics need?

        Here: can the images be told apart by their ids? A class that needs more asks that too, and this.

        Args:
            detection_fields: what the model fills beside boxes, scores and classes: "masks", "keypoints".

        Raises:
            UserError: one of the two lacks something; the message says what, and what to do.
        """
        require_distinct_image_ids(self.dataset.ground_truth())

    def __call__(self, detections: Mapping[int, Detections], *, weights_loaded: bool | None = None) -> EvaluationResult:
        """Compares detections with the data set's ground truth.

        Args:
            detections: image id -> what was found in it.
            weights_loaded: whether the detector's weights were trained or loaded, where the caller knows; only used to
                explain a bad result.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__()")


EVALUATORS = Registry(Evaluator, wiring=("dataset",))


def format_metric(value: float | None) -> str:
    """One decimal, as papers print it; "n/a" where there is nothing to measure."""
    return "n/a" if value is None else f"{value:.1f}"


def _summary_table(metrics: Metrics) -> str:
    """One line of names and one of values for each task ("bbox", "segm", ...)."""
    lines = []
    tasks = list(dict.fromkeys(key.split("/")[0] for key in metrics))
    width = max([6, *(len(task) for task in tasks)])
    for task in tasks:
        names = [key for key in metrics if key.split("/")[0] == task]
        cells = [(name.removeprefix(f"{task}/"), format_metric(metrics[name])) for name in names]
        columns = [max(8, len(name) + 2) for name, _ in cells]
        lines.append(task.ljust(width) + "".join(cell[0].rjust(n) for cell, n in zip(cells, columns, strict=True)))
        lines.append(" " * width + "".join(cell[1].rjust(n) for cell, n in zip(cells, columns, strict=True)))
    return "\n".join(lines)


def _class_table(rows: Sequence[ClassMetrics], max_classes: int) -> str:
    shown = rows[:max_classes]
    columns = list(shown[0].metrics) if shown else []
    width = max([len("class"), *(len(row.name) for row in shown)])
    lines = ["class".ljust(width) + "objects".rjust(10) + "".join(column.rjust(8) for column in columns)]
    for row in shown:
        values = "".join(format_metric(row.metrics[column]).rjust(8) for column in columns)
        lines.append(row.name.ljust(width) + f"{row.num_objects:,}".rjust(10) + values)
    if len(rows) > len(shown):
        lines.append(f"... and {len(rows) - len(shown)} more classes")
    return "\n".join(lines)
