"""The training loop. What else happens during training is a hook."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from frcnn import distributed
from frcnn.engine.durations import Duration
from frcnn.engine.metrics import MetricsFile
from frcnn.engine.options import StepFacts, TrainerOptions
from frcnn.engine.roles import Hook, Schedule
from frcnn.engine.signals import stop_on_signals
from frcnn.engine.validation import Evaluation, TestSet, check_evaluators, evaluate
from frcnn.errors import UserError
from frcnn.modeling.roles import Detector
from frcnn.precision import autocast, gradient_scaler
from frcnn.structures import Batch, DrawKey

logger = logging.getLogger("frcnn")


class TrainLoader(Protocol):
    """What the loop and its hooks need of a loader: batches without end."""

    @property
    def epoch_length(self) -> float: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def from_the_start(self) -> Iterator[Batch]: ...


class Trainer:
    """Steps through batches until the duration is over or a hook asks for a stop.

    Args:
        model: a detector on its device.
        optimizer: over the model's parameters; each group has initial_lr.
        schedule: factor on the learning rates.
        loader: training batches without end, starting behind `iteration` batches.
        test_sets: what `evaluate` runs on.
        hooks: name -> hook.
        options: how the loop runs.
        device: where the model is.
        folder: the run folder.
        seed: of every draw.
        about: further entries of every checkpoint, such as the config and the class names.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        loader: TrainLoader,
        test_sets: Sequence[TestSet],
        hooks: Mapping[str, Hook],
        options: TrainerOptions,
        *,
        device: torch.device,
        folder: Path,
        seed: int = 0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.evaluated_model = model  # a hook that averages weights puts its average here
        self.optimizer = optimizer
        self.schedule = schedule
        self.loader = loader
        self.test_sets = test_sets
        self.hooks = dict(sorted(hooks.items(), key=lambda item: item[1].order))
        self.options = options
        self.device = device
        self.folder = folder
        self.seed = seed
        self.about = dict(about or {})
        self.iteration = 0
        self.epoch_length = loader.epoch_length
        self.max_iterations = options.duration.iterations(loader.epoch_length)
        self.scaler = gradient_scaler(options.amp, device)
        self.metrics = MetricsFile(folder / "metrics.jsonl")
        self.timing = MetricsFile(folder / "timing.jsonl")
        self.stop_reason: str | None = None
        self.interrupted = False
        self.between_steps = True  # weights, counters and hooks agree: a checkpoint saved now is exact
        self._moment_began: dict[str, Any] | None = None  # what the moment between steps may change, as it was before
        self._moment_is_due = False  # the checkpoint was saved before that moment was over
        self.batch: Batch | None = None
        self.facts: StepFacts | None = None

    @property
    def epoch(self) -> float:
        return self.iteration / self.epoch_length

    def train(self) -> None:
        """Runs until the end, a stop, or an exception, which hooks see before the caller does."""
        self.schedule.check(self.max_iterations, self.epoch_length)
        check_evaluators(self.model, self.test_sets)
        if isinstance(self.model, Detector) and not self.model.learns:
            raise UserError(
                "there is nothing to learn: the model reads its proposals from the data set, and has no ROI heads "
                "(model.roi_heads: null); give it ROI heads, or a proposal_generator that learns"
            )
        try:
            with stop_on_signals(self._interrupt):
                self._call("before_train")
                self._loop()
                self._call("after_train")
        except BaseException as error:
            for hook in self.hooks.values():
                hook.on_exception(self, error)
            raise

    def _loop(self) -> None:
        network = self._prepared_model()
        batches = iter(self.loader)
        if self._moment_is_due:
            self._between_steps()
        while self.iteration < self.max_iterations and self.stop_reason is None:
            started = time.perf_counter()
            batch = next(batches)
            data_seconds = time.perf_counter() - started
            self.between_steps = False  # the forward pass already changes something: statistics of batch norms
            self._key_draws()
            self.batch = replace(batch, draw=DrawKey(self.seed, self.iteration, distributed.rank() * len(batch)))
            self._call("before_step")
            lr = self._set_learning_rate()
            losses = self._forward_backward(network, self.batch.to(self.device, non_blocking=True))
            self.scaler.unscale_(self.optimizer)
            self.facts = StepFacts(losses, self._clip_gradient(), lr, data_seconds, 0.0)
            self._call("after_backward")
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            self.iteration += 1
            self.facts.seconds = time.perf_counter() - started
            self._call("after_step")
            self._between_steps()

    def _between_steps(self) -> None:
        """Evaluations, saves and logs. An error here costs no step: a checkpoint can still be saved, see `state_dict`."""
        self._moment_began = self._changed_between_steps()
        self.between_steps = True
        self._call("between_steps")
        self._moment_began, self._moment_is_due = None, False

    def _forward_backward(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        parts = batch.split(self.options.accumulate)
        sums: dict[str, Tensor] = {}
        alone = network.no_sync if isinstance(network, DistributedDataParallel) else nullcontext
        for index, part in enumerate(parts, start=1):
            with alone() if index < len(parts) else nullcontext():  # processes exchange gradients once a step
                with autocast(self.options.amp, self.device):
                    losses = network(part).losses
                self.scaler.scale(total_loss(losses) / len(parts)).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() / len(parts)
        return sums

    def _clip_gradient(self) -> Tensor | None:
        limit = self.options.clip_grad_norm
        if limit is None:
            return None
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        # scaled by a norm of NaN, every gradient would be NaN, and nobody could tell which one was
        nn.utils.clip_grads_with_norm_(parameters, limit, norm.nan_to_num(nan=0.0, posinf=math.inf))
        return norm

    def _set_learning_rate(self) -> float:
        factor = self.schedule(self.iteration, self.max_iterations, self.epoch_length)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return self.optimizer.param_groups[0]["lr"]

    def _key_draws(self) -> None:
        """Keys torch's global generator too: nothing of ours reads it, but a component's dropout does."""
        torch.manual_seed(DrawKey(self.seed, self.iteration, distributed.rank()).number(0, "global"))

    def _prepared_model(self) -> nn.Module:
        self.model.train()
        if self.options.compile:
            self.model.get_submodule("backbone").compile(dynamic=True)
        if distributed.world_size() == 1:
            return self.model
        device_ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(self.model, device_ids=device_ids)

    def _call(self, moment: str, *args: Any) -> None:
        for hook in self.hooks.values():
            getattr(hook, moment)(self, *args)

    def stop(self, reason: str) -> None:
        """Asks for a stop after this step; the first reason is printed."""
        self.stop_reason = self.stop_reason or reason

    def _interrupt(self, reason: str) -> None:
        logger.warning("%s: this step is finished and saved; once more ends at once", reason)
        self.interrupted = self.interrupted or self.stop_reason is None
        self.stop(reason)

    def evaluate(self, *, with_losses: bool = False) -> Evaluation:
        """Evaluates on every test set, writes the metrics, and tells the hooks."""
        evaluation = evaluate(
            self.evaluated_model,
            self.test_sets,
            self.device,
            self.options.amp,
            with_losses=with_losses,
            weights_loaded=True,
        )
        if distributed.is_main():
            self.metrics.write(self.iteration, evaluation.metrics)
        self._call("after_evaluation", evaluation)
        return evaluation

    def is_due(self, every: Duration | None) -> bool:
        """Whether something that happens at an interval happens after this step; at the end it always does."""
        if self.iteration >= self.max_iterations:
            return True
        if every is None:
            return False
        if every.unit == "it":
            return self.iteration % max(1, int(every.amount)) == 0
        length = every.amount * self.epoch_length
        return math.floor(self.iteration / length) > math.floor((self.iteration - 1) / length)

    def state_dict(self, *, failed: bool = False) -> dict[str, Any]:
        """Everything that an exact resume needs: tensors and plain Python.

        Args:
            failed: training has ended by an exception. If that was in the moment between two steps, the state is the one
                before that moment, which a resumed run then repeats: the evaluation that failed is made up for.

        Returns:
            besides what torch gives: `stop_reason`, why a hook has stopped the run for good, None where it may go on
            (also after an interruption).
        """
        averaged = {} if self.evaluated_model is self.model else {"ema": self.evaluated_model.state_dict()}
        before_moment = self._moment_began if failed else None
        return {
            **self.about,
            **averaged,
            "iteration": self.iteration,
            "max_iterations": self.max_iterations,
            "seed": self.seed,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "moment_is_due": before_moment is not None,
            **(before_moment or self._changed_between_steps()),
        }

    def _changed_between_steps(self) -> dict[str, Any]:
        return {
            "hooks": {name: hook.state_dict() for name, hook in self.hooks.items()},
            "stop_reason": None if self.interrupted else self.stop_reason,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint; lines of the metrics files that lie behind it are removed.

        The model's own weights are loaded by the caller, which can report on them. A `stop_reason` is for the caller too.
        """
        self.iteration = state["iteration"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, hook in self.hooks.items():
            if state["hooks"].get(name):
                hook.load_state_dict(state["hooks"][name])
        self._moment_is_due = state.get("moment_is_due", False)
        if distributed.is_main():
            for file in (self.metrics, self.timing):
                file.cut_back(self.iteration - self._moment_is_due)


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the entries whose names start with "loss".

    Raises:
        UserError: there is none.
    """
    values = [value.float() for name, value in losses.items() if name.startswith("loss")]
    if not values:
        raise UserError(
            "there is nothing to learn: the model gives no losses, whose names start with loss; it gives "
            + (", ".join(losses) or "nothing")
        )
    return torch.stack(values).sum()
