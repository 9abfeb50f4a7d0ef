"""Exponential moving average of the weights."""

from __future__ import annotations

from typing import Any

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from frcnn.engine.roles import HOOKS, Hook
from frcnn.engine.trainer import Trainer


@HOOKS.register
class EMA(Hook):
    """Evaluates, and keeps as best.pth, a moving average of the weights and of the norm layers' statistics.

    Args:
        decay: share of the average that stays at each step.
    """

    order = 5

    def __init__(self, *, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must be between 0 and 1, got {decay}")
        self.decay = decay
        self.average: AveragedModel | None = None
        self.restored: dict[str, Any] | None = None

    def before_train(self, trainer: Trainer) -> None:
        self.average = AveragedModel(trainer.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay), use_buffers=True)
        if self.restored is not None:
            self.average.load_state_dict(self.restored)
            self.restored = None
        trainer.evaluated_model = self.average.module

    def after_step(self, trainer: Trainer) -> None:
        assert self.average is not None
        self.average.update_parameters(trainer.model)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.average is None else dict(self.average.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.restored = state
