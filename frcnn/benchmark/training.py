"""A training of one variant with one seed, and what it came to."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from frcnn.benchmark.machine import describe_machine, peak_memory
from frcnn.benchmark.tasks import Task
from frcnn.checkpoint.load import load_checkpoint
from frcnn.checkpoint.save import find_last, numbered_checkpoints
from frcnn.request import Request
from frcnn.run import local_device, train

RUN = "run"


def train_once(task: Task) -> dict[str, Any] | None:
    """Trains, or goes on from the last checkpoint, and evaluates at the end.

    Returns:
        the result; None if it was asked to stop before the end.
    """
    run = Path(task.folder) / RUN
    request = Request(
        config_file=task.config_file, overrides=(f"seed={task.number}",), output_dir=str(run), device=task.device
    )
    last = find_last(run)
    if last is None:
        shutil.rmtree(run, ignore_errors=True)  # killed before its first checkpoint: there is nothing to go on from
        trainer = train(request)
    elif not is_finished(last):
        trainer = train(replace(request, resume=True))
    else:
        trainer = None
    if trainer is not None and trainer.interrupted:
        return None
    last = find_last(run)
    assert last is not None  # the config's own hooks were given a SaveCheckpoint
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    device = local_device(task.device)
    return {
        "variant": task.variant,
        "seed": task.number,
        "iterations": evaluation.pop("iteration"),
        "metrics": evaluation,
        "train_seconds": round(train_seconds(run / "timing.jsonl"), 1),
        "peak_memory": peak_memory(device),
        "stopped": load_checkpoint(last).get("stop_reason"),
        "machine": describe_machine(device),
    }


def remove_checkpoints(task: Task) -> None:
    """Frees the disk; the result, the metrics and the log stay."""
    for path in numbered_checkpoints(Path(task.folder) / RUN):
        path.unlink()


def is_finished(path: Path) -> bool:
    """Whether the run of a checkpoint has nothing left to do."""
    checkpoint = load_checkpoint(path)
    ended = checkpoint["iteration"] >= checkpoint["max_iterations"] or checkpoint.get("stop_reason")
    return bool(ended) and not checkpoint.get("moment_is_due")


def train_seconds(timing: Path) -> float:
    """Seconds in training steps, waiting for data included, from the run's timing.jsonl."""
    lines = [json.loads(line) for line in timing.read_text(encoding="utf-8").splitlines()] if timing.exists() else []
    ends = [0, *(line["iteration"] for line in lines)]
    steps = [after - before for before, after in pairwise(ends)]
    return sum(n * line["seconds_per_iteration"] for n, line in zip(steps, lines, strict=True))
