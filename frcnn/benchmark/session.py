"""A benchmark from its configs to its results: which runs, in which order, and what is already there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from frcnn.benchmark.lock import only_one_in
from frcnn.benchmark.scheduler import Scheduler
from frcnn.benchmark.tasks import Kind, SpeedOptions, Task
from frcnn.benchmark.training import RUN
from frcnn.benchmark.variants import Variant, keep_config
from frcnn.checkpoint.save import find_last

KINDS: tuple[Kind, ...] = ("latency", "throughput")


@dataclass(frozen=True)
class Plan:
    """What a benchmark is to do.

    Args:
        variants: the first is what the others are compared with.
        output: the folder of the benchmark.
        device: as a person writes it.
        seeds: every variant is trained with each; none trains nothing.
        rounds: how often the speed of every variant is measured.
        speed: how it is measured.
        remove_checkpoints: of finished runs, but those of the first seed, which the latency is measured with.
    """

    variants: Sequence[Variant]
    output: Path
    device: str = "auto"
    seeds: Sequence[int] = (0, 1, 2)
    rounds: int = 3
    speed: SpeedOptions = field(default_factory=SpeedOptions)
    remove_checkpoints: bool = False

    @property
    def ready(self) -> list[Variant]:
        return [variant for variant in self.variants if variant.config is not None]

    def folder(self, variant: str) -> Path:
        return self.output / "variants" / variant

    def trainings(self) -> list[Task]:
        """Seed by seed over the variants, so that a machine that changes over hours changes for all of them."""
        return [
            replace(
                self._task("training", variant.name, seed),
                remove_checkpoint=self.remove_checkpoints and seed != self.seeds[0],
            )
            for seed in self.seeds
            for variant in self.ready
        ]

    def measurements(self) -> list[Task]:
        """Round by round over the variants: every round times each of them once, latency and throughput.

        A variant none of whose trainings succeeded is not timed.
        """
        trained = {task.variant for task in self.trainings() if task.result is not None}
        timed = [variant for variant in self.ready if variant.name in trained or not self.seeds]
        return [
            replace(self._task(kind, variant.name, number), speed=self._speed(kind, variant.name))
            for number in range(self.rounds)
            for kind in KINDS
            for variant in timed
        ]

    def _task(self, kind: Kind, variant: str, number: int) -> Task:
        folder = self.folder(variant)
        place = folder / (f"seed_{number}" if kind == "training" else f"{kind}_{number}")
        return Task(kind, variant, number, str(folder / "config.yaml"), str(place), self.device)

    def _speed(self, kind: Kind, variant: str) -> SpeedOptions:
        if kind == "throughput" or not self.seeds:
            return self.speed
        checkpoint = find_last(self.folder(variant) / f"seed_{self.seeds[0]}" / RUN)
        return replace(self.speed, weights=str(checkpoint) if checkpoint else None)


def run_benchmark(plan: Plan, scheduler: Scheduler, say: Callable[[str], None]) -> None:
    """Carries out every run that has no result yet: trainings, then speed, which is measured on trained weights.

    Args:
        plan: what to do.
        scheduler: where.
        say: told of progress, a line at a time.

    Raises:
        UserError: the folder holds results of other configs, or another benchmark is at work in it.
    """
    plan.output.mkdir(parents=True, exist_ok=True)
    with only_one_in(plan.output, patience=5):
        for variant in plan.ready:
            keep_config(variant, plan.folder(variant.name))
        if trainings := plan.trainings():
            _carry_out([[task] for task in trainings], scheduler, say)
        if measurements := plan.measurements():
            _carry_out([measurements], scheduler, say)


def _carry_out(groups: Sequence[Sequence[Task]], scheduler: Scheduler, say: Callable[[str], None]) -> None:
    missing = [[task for task in group if task.result is None] for group in groups]
    total, left = sum(map(len, groups)), sum(map(len, missing))
    if left < total:
        what = "trainings" if groups[0][0].kind == "training" else "speed measurements"
        say(f"{total - left} of {total} {what} are there already")
    number = total - left

    def done(task: Task) -> None:
        nonlocal number
        number += 1
        outcome = f"failed: {task.error}" if task.error else f"{task.seconds:.0f} s{_score(task)}"
        say(f"[{number}/{total}] {task}: {outcome}")

    if left:
        scheduler.run([group for group in missing if group], done)


def _score(task: Task) -> str:
    result = task.result
    scores = [value for name, value in (result or {}).get("metrics", {}).items() if name.endswith("bbox/AP")]
    return f", AP {scores[0]:.1f}" if scores and scores[0] is not None else ""
