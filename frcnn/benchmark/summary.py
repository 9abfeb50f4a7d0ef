"""The results of a benchmark, one row a variant."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frcnn.benchmark.machine import machine_text
from frcnn.benchmark.session import Plan
from frcnn.benchmark.statistics import Difference, Spread, paired_difference
from frcnn.benchmark.tasks import Task
from frcnn.benchmark.variants import Variant
from frcnn.checkpoint.config_changes import ConfigChange
from frcnn.data.coco import DEFAULT_ROOT, ROOT_VARIABLE

METRICS = ("bbox/AP", "bbox/AP50", "bbox/AP75", "bbox/APs", "bbox/APm", "bbox/APl", "segm/AP", "keypoints/AP")


@dataclass(frozen=True)
class Row:
    """What a benchmark says of one variant; None where it was not measured.

    Args:
        name: of the variant.
        is_first: it is what the others are compared with.
        metrics: name -> values over seeds, of the first test set.
        differences: name -> the difference to the first variant, seed by seed.
        latency: seconds of each timed pass, round by round.
        steps: seconds of each timed training step, round by round.
        batch_size: images of a training step.
        facts: of the first latency run: size, parameters, trainable, flops, trained, amp.
        inference_memory: peak in bytes, the largest of the rounds.
        training_memory: likewise.
        changes: how its config differs from the first one's.
        problems: what has no result and why, a line each.
        remarks: what has a result that needs a word, a line each.
    """

    name: str
    is_first: bool
    metrics: dict[str, Spread]
    differences: dict[str, Difference]
    latency: Sequence[Sequence[float]] = ()
    steps: Sequence[Sequence[float]] = ()
    batch_size: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    inference_memory: int | None = None
    training_memory: int | None = None
    changes: Sequence[ConfigChange] = ()
    problems: Sequence[str] = ()
    remarks: Sequence[str] = ()

    @property
    def ap(self) -> Spread:
        return self.metrics["bbox/AP"]

    @property
    def latency_median(self) -> float | None:
        """Seconds, over the passes of all rounds."""
        return _median(_all(self.latency))

    @property
    def latency_p90(self) -> float | None:
        """Seconds that nine of ten passes stay below."""
        values = _all(self.latency)
        return statistics.quantiles(values, n=10, method="inclusive")[8] if len(values) > 1 else None

    @property
    def latency_rounds(self) -> list[float]:
        """The median of each round: how steady the machine was."""
        return [statistics.median(values) for values in self.latency]

    @property
    def images_per_second(self) -> float | None:
        """Of training, by the median step."""
        median = _median(_all(self.steps))
        return None if median is None or self.batch_size is None else self.batch_size / median


@dataclass(frozen=True)
class Summary:
    """A whole benchmark.

    Args:
        rows: a variant each; the first is what the others are compared with.
        runs: every result of a training, for the table of runs.
        machines: in words, those that anything was measured on.
        plan: what was asked for.
    """

    rows: Sequence[Row]
    runs: Sequence[dict[str, Any]]
    machines: Sequence[str]
    plan: Plan


def summarise(plan: Plan) -> Summary:
    """Reads every result that is there."""
    trainings, measurements = plan.trainings(), plan.measurements()
    first = plan.variants[0]
    reference: dict[str, Spread] = {}
    rows = []
    for variant in plan.variants:
        mine = [task for task in trainings if task.variant == variant.name]
        timed = [task for task in measurements if task.variant == variant.name]
        row = _row(variant, first, mine, timed, reference, plan.output)
        reference = reference or row.metrics
        rows.append(row)
    results = [task.result for task in (*trainings, *measurements)]
    machines = dict.fromkeys(machine_text(result["machine"]) for result in results if result)
    return Summary(rows, [r for r in results if r and "metrics" in r], list(machines), plan)


def _row(
    variant: Variant,
    first: Variant,
    trainings: Sequence[Task],
    measurements: Sequence[Task],
    reference: dict[str, Spread],
    output: Path,
) -> Row:
    metrics = {name: _spread(trainings, name) for name in METRICS}
    by_kind = {
        kind: [result for task in measurements if task.kind == kind and (result := task.result)]
        for kind in ("latency", "throughput")
    }
    latency, throughput = by_kind["latency"], by_kind["throughput"]
    return Row(
        variant.name,
        variant is first,
        metrics,
        {name: paired_difference(metrics[name], reference.get(name, metrics[name])) for name in METRICS},
        latency=[result["seconds"] for result in latency],
        steps=[result["seconds"] for result in throughput],
        batch_size=throughput[0]["batch_size"] if throughput else None,
        facts=latency[0] if latency else {},
        inference_memory=max((result["peak_memory"] for result in latency), default=None),
        training_memory=max((result["peak_memory"] for result in throughput), default=None),
        changes=variant.changes_from(first),
        problems=[without_machine(line, output) for line in _problems(variant, (*trainings, *measurements))],
        remarks=[without_machine(line, output) for line in _remarks(trainings)],
    )


def without_machine(line: str, output: Path) -> str:
    """A line of a report, which others read elsewhere, with its paths shortened.

    Args:
        line: may hold absolute paths.
        output: folder of the benchmark.

    Returns:
        the line with paths relative to that folder or the working directory, else to $FRCNN_DATASETS or the home folder,
        where they lie in one of these.
    """
    datasets = os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT
    places = ((output, ""), (Path(), ""), (Path(datasets), f"${ROOT_VARIABLE}/"), (Path.home(), "~/"))
    for folder, name in places:
        for path in {os.path.abspath(folder), os.path.realpath(folder)} - {"/"}:
            line = re.sub(rf"(?<![\w/.-]){re.escape(path)}/", name, line)
    return line


def _spread(trainings: Sequence[Task], name: str) -> Spread:
    """A metric of the first test set over the seeds that have it."""
    values = {}
    for task in trainings:
        found = [v for key, v in (task.result or {"metrics": {}})["metrics"].items() if key.endswith(f"/{name}")]
        if found and found[0] is not None:
            values[task.number] = found[0]
    return Spread(values)


def _problems(variant: Variant, tasks: Iterable[Task]) -> list[str]:
    if variant.error:
        return [variant.error.splitlines()[0]]
    return [f"{task.what}: {task.error or 'not run'}" for task in tasks if task.result is None]


def _remarks(tasks: Iterable[Task]) -> list[str]:
    stopped = [(task, result) for task in tasks if (result := task.result) and result.get("stopped")]
    return [
        f"{task.what}: stopped at iteration {result['iterations']}: {result['stopped']}" for task, result in stopped
    ]


def _all(rounds: Iterable[Sequence[float]]) -> list[float]:
    return [value for values in rounds for value in values]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
