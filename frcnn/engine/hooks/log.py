"""Logging: one compact line on the console, everything in metrics.jsonl and timing.jsonl, TensorBoard if installed."""

from __future__ import annotations

import logging
import resource
import sys
import time
from typing import Any

import torch

from frcnn import distributed
from frcnn.engine.durations import Duration, require_some
from frcnn.engine.roles import HOOKS, Hook
from frcnn.engine.trainer import Trainer
from frcnn.engine.validation import Evaluation

logger = logging.getLogger("frcnn")


@HOOKS.register
class LogMetrics(Hook):
    """Averages what the steps measured and writes a line at an interval.

    A checkpoint between two lines holds the sums of the first process. So with several processes, the first line after a
    resume counts the steps before it as that process measured them; the lines after it are exact.

    Args:
        every: how often a line is written.
        tensorboard: write event files too; needs the tensorboard package, and says so if it is missing.
    """

    order = 10

    def __init__(self, *, every: Duration = Duration(20, "it"), tensorboard: bool = False) -> None:  # noqa: B008
        require_some("every", every)
        self.every = every
        self.tensorboard = tensorboard
        self.writer: Any = None
        self.sums: dict[str, torch.Tensor] = {}
        self.steps = 0
        self.images = 0
        self.seconds = 0.0
        self.data_seconds = 0.0

    def before_train(self, trainer: Trainer) -> None:
        self.images, self.seconds, self.data_seconds = 0, 0.0, 0.0
        if self.tensorboard and distributed.is_main():
            self.writer = _tensorboard_writer(trainer)

    def after_step(self, trainer: Trainer) -> None:
        facts, batch = trainer.facts, trainer.batch
        assert facts is not None and batch is not None
        measured = dict(facts.losses)
        if facts.grad_norm is not None:
            measured["grad_norm"] = facts.grad_norm
        for name, value in measured.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.steps += 1
        self.images += len(batch) * distributed.world_size()
        self.seconds += facts.seconds
        self.data_seconds += facts.data_seconds

    def between_steps(self, trainer: Trainer) -> None:
        if trainer.is_due(self.every):
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        names = list(self.sums)
        means = torch.stack([self.sums[name].float() for name in names]) / self.steps
        values = dict(zip(names, distributed.mean_over_processes(means).tolist(), strict=True))
        loss = sum(value for name, value in values.items() if name.startswith("loss"))
        lr = trainer.optimizer.param_groups[0][
            "lr"
        ]  # of the last step, also where a resumed run makes up for this line
        metrics = {"epoch": round(trainer.epoch, 4), "lr": lr, "loss": loss, **values}
        timing = self._timing(trainer)
        self.sums, self.steps = {}, 0
        self.images, self.seconds, self.data_seconds = 0, 0.0, 0.0
        if not distributed.is_main():
            return
        trainer.metrics.write(trainer.iteration, metrics)
        trainer.timing.write(trainer.iteration, timing)
        logger.info(console_line(trainer, metrics, timing))
        if self.writer:
            for name, value in {**metrics, **timing}.items():
                self.writer.add_scalar(name, value, trainer.iteration)

    def _timing(self, trainer: Trainer) -> dict[str, float]:
        remaining = trainer.max_iterations - trainer.iteration
        return {
            "images_per_second": round(self.images / self.seconds, 2) if self.seconds else 0.0,
            "data_share": round(self.data_seconds / self.seconds, 4) if self.seconds else 0.0,
            "seconds_per_iteration": round(self.seconds / self.steps, 5),
            "eta_seconds": round(self.seconds / self.steps * remaining, 1),
            "memory_gib": round(memory_gib(trainer.device), 3),
            "time": round(time.time(), 2),
        }

    def after_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        if not distributed.is_main():
            return
        for name, result in evaluation.results.items():
            logger.info("%s at iteration %d (epoch %.2f)\n%s", name, trainer.iteration, trainer.epoch, result.table())
        if self.writer:
            for name, value in evaluation.metrics.items():
                if value is not None:
                    self.writer.add_scalar(name, value, trainer.iteration)

    def after_train(self, trainer: Trainer) -> None:
        if self.writer:
            self.writer.close()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = dict(state["sums"])
        self.steps = state["steps"]


def console_line(trainer: Trainer, metrics: dict[str, float], timing: dict[str, float]) -> str:
    """Epoch, iteration, losses, learning rate, speed, waiting, time left, memory: on one line."""
    parts = [f"{name.removeprefix('loss_')} {value:.3f}" for name, value in metrics.items() if name.startswith("loss_")]
    epochs = trainer.max_iterations / trainer.epoch_length
    minutes, seconds = divmod(int(timing["eta_seconds"]), 60)
    hours, minutes = divmod(minutes, 60)
    eta = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    width = len(str(trainer.max_iterations))
    return (
        f"ep {trainer.epoch:.2f}/{epochs:.3g}  it {trainer.iteration:>{width}}/{trainer.max_iterations}  "
        f"loss {metrics['loss']:.3f} ({', '.join(parts)})  lr {metrics['lr']:.2e}  "
        f"{timing['images_per_second']:.1f} img/s  data {timing['data_share']:.0%}  ETA {eta}  "
        f"mem {timing['memory_gib']:.1f} GiB"
    )


def memory_gib(device: torch.device) -> float:
    """The most memory used so far: of the device where it has its own, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _tensorboard_writer(trainer: Trainer) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning('no event files: TensorBoard is not installed (pip install "frcnn[tensorboard]")')
        return None
    return SummaryWriter(str(trainer.folder / "tensorboard"), purge_step=trainer.iteration)
