"""Saving checkpoints."""

from __future__ import annotations

import logging
from typing import Any

from frcnn import distributed
from frcnn.checkpoint.save import checkpoint_path, keep_last, save_checkpoint
from frcnn.engine.durations import Duration, require_some
from frcnn.engine.roles import HOOKS, Hook
from frcnn.engine.trainer import Trainer

logger = logging.getLogger("frcnn")


@HOOKS.register
class SaveCheckpoint(Hook):
    """Saves everything that an exact resume needs, at an interval, at the end, and when training ends early.

    Args:
        every: how often.
        keep: how many of the newest checkpoints stay on disk.
    """

    order = 100

    def __init__(self, *, every: Duration = Duration(1, "ep"), keep: int = 2) -> None:  # noqa: B008 (frozen)
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        require_some("every", every)
        self.every = every
        self.keep = keep
        self.saved_at: int | None = None  # until training begins

    def before_train(self, trainer: Trainer) -> None:
        self.saved_at = trainer.iteration

    def between_steps(self, trainer: Trainer) -> None:
        if trainer.is_due(self.every):
            self._save(trainer)

    def after_train(self, trainer: Trainer) -> None:
        if self.saved_at != trainer.iteration:
            self._save(trainer)

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """A broken image, or an evaluation that fails after hours of training, costs no step.

        What fails within a step is not saved, since it may have changed the model. Other processes may be gone: nobody
        waits for them.
        """
        if trainer.between_steps and self.saved_at is not None and self.saved_at < trainer.iteration:
            self._write(trainer, failed=True)

    def _save(self, trainer: Trainer) -> None:
        self._write(trainer)
        distributed.barrier()

    def _write(self, trainer: Trainer, *, failed: bool = False) -> None:
        if distributed.is_main():
            path = checkpoint_path(trainer.folder, trainer.iteration)
            save_checkpoint(path, trainer.state_dict(failed=failed))
            keep_last(trainer.folder, self.keep)
            logger.info("saved %s", path)
        self.saved_at = trainer.iteration


def weights_for_prediction(trainer: Trainer) -> dict[str, Any]:
    """A checkpoint that serves prediction alone: the weights that were evaluated, config and class names."""
    return {**trainer.about, "iteration": trainer.iteration, "model": trainer.evaluated_model.state_dict()}
