"""The best checkpoint, and stopping when there is no better one."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from frcnn import distributed
from frcnn.checkpoint.save import save_checkpoint
from frcnn.engine.hooks.checkpoint import weights_for_prediction
from frcnn.engine.hooks.evaluate import Evaluate
from frcnn.engine.roles import HOOKS, Hook
from frcnn.engine.trainer import Trainer
from frcnn.engine.validation import Evaluation
from frcnn.errors import UserError

logger = logging.getLogger("frcnn")


class _WatchMetric(Hook):
    """Compares a metric with the best so far. A metric that has no value counts as the worst."""

    def __init__(self, metric: str, higher_is_better: bool) -> None:
        if higher_is_better and metric.split("/")[-1].startswith("loss"):
            raise ValueError(f"higher_is_better must be false for a loss, and metric is {metric!r}")
        self.metric = metric
        self.higher_is_better = higher_is_better
        self.best: float | None = None
        self.best_iteration = -1
        self.known: list[str] | None = None  # what there is, as long as it is not clear that the metric is among it

    def before_train(self, trainer: Trainer) -> None:
        names = {test_set.name: list(test_set.evaluator.metric_names) for test_set in trainer.test_sets}
        losses = any(isinstance(hook, Evaluate) and hook.losses for hook in trainer.hooks.values())
        self.known = _known(names, ["loss"] if losses else [])
        if self.metric in self.known:
            self.known = None
        elif "loss" not in self.metric:
            self._refuse(self.known)
        elif not losses:
            self._refuse(self.known, "; losses on the test sets are computed with losses: true in Evaluate")

    def after_backward(self, trainer: Trainer) -> None:
        """The names of single losses are only known now, still before the first step."""
        if self.known is None:
            return
        assert trainer.facts is not None
        names = {test_set.name: list(trainer.facts.losses) for test_set in trainer.test_sets}
        known = [*self.known, *_known(names, [])]
        if self.metric not in known:
            self._refuse(known)
        self.known = None

    def _refuse(self, known: list[str], hint: str = "") -> None:
        there = f"there are: {', '.join(known)}" if known else "there is no test set under data.test"
        raise UserError(f"{type(self).__name__}.metric: no metric is called {self.metric!r}; {there}{hint}")

    def improved(self, trainer: Trainer, evaluation: Evaluation, min_delta: float) -> bool:
        """Whether this evaluation is the best so far, which is remembered; the first one always is."""
        found = evaluation.find(self.metric)
        worst = float("-inf") if self.higher_is_better else float("inf")
        value = worst if found is None or math.isnan(found) else found
        gain = 0.0 if self.best is None else (value - self.best if self.higher_is_better else self.best - value)
        if self.best is not None and not gain > min_delta:
            return False
        self.best, self.best_iteration = value, trainer.iteration
        return True

    @property
    def shown(self) -> str:
        """The best value as text; n/a where no evaluation had one, as without objects in the test set."""
        return f"{self.best:#.4g}" if self.best is not None and math.isfinite(self.best) else "n/a"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_iteration": self.best_iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_iteration = state["best"], state["best_iteration"]


def _known(names: Mapping[str, list[str]], more: list[str]) -> list[str]:
    """Every metric as `metric` of the first set and as `set/metric`."""
    first = next(iter(names.values()), [])
    return [*first, *(more if names else []), *(f"{name}/{key}" for name in names for key in [*names[name], *more])]


@HOOKS.register
class BestCheckpoint(_WatchMetric):
    """Keeps the evaluated weights of the best evaluation as best.pth. It exists after the first evaluation, even at AP 0.

    Args:
        metric: by which evaluations are compared: `bbox/AP` of the first test set, or `set/bbox/AP`; `loss` or `set/loss`
            needs the option losses of Evaluate.
        higher_is_better: false for losses.
    """

    order = 30

    def __init__(self, *, metric: str = "bbox/AP", higher_is_better: bool = True) -> None:
        super().__init__(metric, higher_is_better)

    def after_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        if self.improved(trainer, evaluation, 0.0) and distributed.is_main():
            save_checkpoint(trainer.folder / "best.pth", weights_for_prediction(trainer))
            logger.info("best so far: %s %s, saved as %s", self.metric, self.shown, trainer.folder / "best.pth")


@HOOKS.register
class EarlyStop(_WatchMetric):
    """Stops training when a metric has not improved for some evaluations.

    Args:
        metric: by which evaluations are compared: `bbox/AP` of the first test set, or `set/bbox/AP`; `loss` or `set/loss`
            needs the option losses of Evaluate.
        patience: how many evaluations in a row may pass without an improvement.
        min_delta: how much is an improvement.
        higher_is_better: false for losses.
    """

    order = 40

    def __init__(
        self, *, metric: str = "bbox/AP", patience: int = 5, min_delta: float = 0.0, higher_is_better: bool = True
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        super().__init__(metric, higher_is_better)
        self.patience = patience
        self.min_delta = min_delta
        self.failures = 0

    def after_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        self.failures = 0 if self.improved(trainer, evaluation, self.min_delta) else self.failures + 1
        if self.failures >= self.patience:
            trainer.stop(
                f"{self.metric} has not improved by more than {self.min_delta:g} in {self.patience} evaluations "
                f"(best {self.shown} at iteration {self.best_iteration})"
            )

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "failures": self.failures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.failures = state["failures"]
