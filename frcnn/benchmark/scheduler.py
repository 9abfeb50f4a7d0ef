"""How the runs of a benchmark are carried out, each in a process of its own: here, or in `clusters.py` on other machines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from frcnn.benchmark.tasks import LOG, Task

Group = Sequence[Task]
"""Tasks that are carried out on one machine, in this order, so that what they measure can be compared."""


class Scheduler(Protocol):
    """Carries out groups of tasks and returns when all have ended; `done` is told of each task that has."""

    def run(self, groups: Sequence[Group], done: Callable[[Task], None]) -> None: ...


class LocalScheduler:
    """One process at a time on this machine: two at once would slow each other down."""

    def run(self, groups: Sequence[Group], done: Callable[[Task], None]) -> None:
        for group in groups:
            for task in group:
                run_task(task)
                done(task)


def run_group(group: Group) -> None:
    """The tasks of one group, one after the other."""
    for task in group:
        run_task(task)


def run_task(task: Task) -> None:
    """Carries out one task in a process of its own; its result or its error lies in the task's folder afterwards.

    An interruption is passed on: a training finishes its step and saves before this function raises.
    """
    task.save()
    with (Path(task.folder) / LOG).open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "frcnn.benchmark.worker", str(task.path)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        try:
            code = process.wait()
        except BaseException:
            process.stdin.close()  # asks it to stop
            process.wait()
            raise
        process.stdin.close()
    if code not in (0, 1):
        task.fail(_ending(code))


def _ending(code: int) -> str:
    if code == -9:
        return (
            "killed by the system (signal 9), most often for want of memory; it goes on from its checkpoint next time"
        )
    if code == 3:
        return "stopped by a signal; it goes on from its checkpoint next time"
    return f"ended by signal {-code}" if code < 0 else f"ended with code {code} before it could say why"
