"""A profile of some steps."""

from __future__ import annotations

import logging
from typing import Any

import torch

from frcnn import distributed
from frcnn.engine.roles import HOOKS, Hook
from frcnn.engine.trainer import Trainer

logger = logging.getLogger("frcnn")


@HOOKS.register
class Profile(Hook):
    """Profiles some steps with torch.profiler; prints the most expensive operators and writes a trace for Perfetto.

    Args:
        start: how many steps pass before it begins.
        steps: how many steps are profiled; fewer if training ends before.
        rows: operators in the printed table.
    """

    order = 1

    def __init__(self, *, start: int = 10, steps: int = 5, rows: int = 20) -> None:
        if start < 0 or steps < 1:
            raise ValueError(f"start must be at least 0 and steps at least 1, got {start} and {steps}")
        self.start = start
        self.steps = steps
        self.rows = rows
        self.profiler: Any = None
        self.done = 0

    def before_step(self, trainer: Trainer) -> None:
        if self.done == self.start and distributed.is_main():
            self.profiler = torch.profiler.profile(record_shapes=True)
            self.profiler.start()
        self.done += 1

    def between_steps(self, trainer: Trainer) -> None:
        if self.profiler is not None and self.done >= self.start + self.steps:
            self._finish(trainer)

    def after_train(self, trainer: Trainer) -> None:
        if self.profiler is not None:
            self._finish(trainer)
        elif self.done <= self.start and distributed.is_main():
            logger.warning(
                "no profile: training ended after %d steps, and Profile.start is %d; lower it", self.done, self.start
            )

    def _finish(self, trainer: Trainer) -> None:
        self.profiler.stop()
        path = trainer.folder / "profile.json"
        self.profiler.export_chrome_trace(str(path))
        key = "self_cuda_time_total" if trainer.device.type == "cuda" else "self_cpu_time_total"
        table = self.profiler.key_averages().table(sort_by=key, row_limit=self.rows)
        logger.info("profile of %d steps (trace: %s)\n%s", self.done - self.start, path, table)
        self.profiler = None
