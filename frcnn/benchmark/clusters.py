"""Runs on more machines, which share the folder of the benchmark: by submitit (SLURM) or by Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from frcnn.benchmark.scheduler import Group, run_group
from frcnn.benchmark.tasks import Task
from frcnn.errors import UserError


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
                error = f"the job {job.job_id} was lost: {_last_line(failure)}"
            _report(group, error, done)


class RayScheduler:
    """Tasks of Ray (https://docs.ray.io), one for each group, as many at once as the cluster has room for.

    Args:
        options: of a Ray task, such as num_cpus, num_gpus, resources; `address` is that of the cluster, and without it Ray uses
            the one that RAY_ADDRESS names or starts one on this machine.

    Raises:
        UserError: Ray is not installed, finds no cluster at the address, or does not know an option.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError('--scheduler ray needs the package ray: pip install "frcnn[ray]"') from error
        options = dict(options)
        address = options.pop("address", None)
        try:
            self.remote = ray.remote(_run_group_there).options(max_retries=0, **options)
            ray.init(address=address, log_to_driver=False, ignore_reinit_error=True)
        except (ValueError, TypeError, RuntimeError, ConnectionError) as error:
            raise UserError(f"--scheduler-option: Ray says: {error}") from error

    def run(self, groups: Sequence[Group], done: Callable[[Task], None]) -> None:
        import ray

        environment = {name: value for name, value in os.environ.items() if name.startswith("FRCNN_")}
        waiting = {self.remote.remote(os.getcwd(), environment, group): group for group in groups if group}
        try:
            while waiting:
                (job,), _ = ray.wait(list(waiting), num_returns=1)
                group, error = waiting.pop(job), None
                try:
                    ray.get(job)
                except ray.exceptions.RayError as failure:
                    error = f"the Ray task was lost: {_last_line(failure)}"
                _report(group, error, done)
        except BaseException:
            for job in waiting:
                ray.cancel(job)  # raises KeyboardInterrupt there: a training finishes its step and saves
            ray.wait(list(waiting), num_returns=len(waiting), timeout=60)
            raise


def _run_group_there(folder: str, environment: Mapping[str, str], group: Group) -> None:
    """A worker of Ray starts anywhere; paths of a benchmark may be relative to where it was started."""
    os.chdir(folder)
    os.environ.update(environment)
    run_group(group)


def _report(group: Group, error: str | None, done: Callable[[Task], None]) -> None:
    """Tells of each task of a group that has ended; `error` is why those without a result have none."""
    for task in group:
        if error and task.result is None and task.error is None:
            task.fail(error)
        done(task)


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
