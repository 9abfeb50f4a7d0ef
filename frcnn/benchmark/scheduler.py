"""Where the runs of a benchmark are carried out: one after the other here, or as jobs of submitit (SLURM)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from frcnn.benchmark.tasks import LOG, Task
from frcnn.errors import UserError

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


class SubmititScheduler:
    """Jobs by submitit (https://github.com/facebookincubator/submitit), one for each group.

    Args:
        folder: for submitit's own files.
        options: of `submitit.AutoExecutor`, such as slurm_partition, timeout_min, gpus_per_node; `cluster` says slurm or
            local, and is found out where it is not given.

    Raises:
        UserError: submitit is not installed, or does not know an option.
    """

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UserError('--scheduler submitit needs the package submitit: pip install "frcnn[submitit]"') from error
        options = dict(options)
        cluster = options.pop("cluster", None)
        try:
            self.executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self.executor.update_parameters(**options)
        except (ValueError, NameError, TypeError, RuntimeError) as error:
            raise UserError(f"--scheduler-option: submitit says: {error}") from error

    def run(self, groups: Sequence[Group], done: Callable[[Task], None]) -> None:
        jobs = [(self.executor.submit(run_group, group), group) for group in groups if group]
        for job, group in jobs:
            error = None
            try:
                job.result()
            except Exception as failure:  # the job itself was lost: the node, the time limit
                error = f"the job {job.job_id} was lost: {str(failure).strip().splitlines()[-1]}"
            for task in group:
                if error and task.result is None and task.error is None:
                    task.fail(error)
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
