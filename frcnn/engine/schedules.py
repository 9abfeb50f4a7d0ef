"""Learning-rate schedules: fvcore's parameter schedulers behind a linear warm-up."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler, ParamScheduler

from frcnn.engine.durations import Duration
from frcnn.engine.roles import SCHEDULES, Schedule
from frcnn.errors import UserError

logger = logging.getLogger("frcnn")


def warmed_up(base: ParamScheduler, iteration: int, total: int, warmup: int, warmup_factor: float) -> float:
    """The base schedule's factor, approached on a straight line during the first `warmup` iterations.

    Args:
        base: the schedule after the warm-up, a function of progress in [0, 1).
        iteration: steps done so far.
        total: steps of the whole training.
        warmup: steps of the warm-up.
        warmup_factor: factor at iteration 0.
    """
    if iteration >= warmup:
        return base(iteration / total)
    start, end = warmup_factor * base(0.0), base(min(warmup, total - 1) / total)
    return start + (end - start) * iteration / warmup


def _check_warmup_factor(warmup_factor: float) -> None:
    if not 0 <= warmup_factor <= 1:
        raise ValueError(f"warmup_factor must be in [0, 1], got {warmup_factor}")


def _warn_of_long_warmup(warmup: Duration, total: int, epoch_length: float) -> None:
    if warmup.iterations(epoch_length) >= total:
        logger.warning(
            "the warm-up (schedule.warmup=%s) lasts as long as the whole training of %d iterations, so the learning rate never "
            "reaches optimizer.lr; shorten it, for example schedule.warmup=%dit",
            warmup,
            total,
            total // 10,
        )


@SCHEDULES.register
class WarmupMultiStep(Schedule):
    """Drops the learning rate at milestones, after a linear warm-up.

    Args:
        milestones: when the learning rate drops, one after the other.
        gamma: factor of each drop.
        warmup: length of the warm-up.
        warmup_factor: factor on the learning rate at the first step.
    """

    def __init__(
        self,
        *,
        milestones: tuple[Duration, ...],
        gamma: float = 0.1,
        warmup: Duration = Duration(1000, "it"),  # noqa: B008 (frozen)
        warmup_factor: float = 0.001,
    ) -> None:
        _check_warmup_factor(warmup_factor)
        if gamma <= 0:
            raise ValueError(f"gamma must be above 0, got {gamma}")
        self.milestones = milestones
        self.gamma = gamma
        self.warmup = warmup
        self.warmup_factor = warmup_factor

    def __call__(self, iteration: int, total: int, epoch_length: float) -> float:
        milestones = [m.iterations(epoch_length) for m in self.milestones]
        milestones = [m for m in milestones if m < total]
        values = [self.gamma**i for i in range(len(milestones) + 1)]
        base = MultiStepParamScheduler(values, num_updates=total, milestones=milestones)
        return warmed_up(base, iteration, total, self.warmup.iterations(epoch_length), self.warmup_factor)

    def check(self, total: int, epoch_length: float) -> None:
        iterations = [m.iterations(epoch_length) for m in self.milestones]
        if any(later <= earlier for earlier, later in zip([0, *iterations], iterations, strict=False)):
            raise UserError(
                f"schedule.milestones must be above 0 and rise from one to the next, got {_listed(self.milestones)}, "
                f"which are the iterations {', '.join(map(str, iterations))}"
            )
        missed = [m for m, at in zip(self.milestones, iterations, strict=True) if at >= total]
        if missed:
            logger.warning(
                "training ends after %d iterations and never reaches schedule.milestones %s; lower them, or lengthen "
                "trainer.duration",
                total,
                _listed(missed),
            )
        _warn_of_long_warmup(self.warmup, total, epoch_length)


def _listed(durations: Sequence[Duration]) -> str:
    return ", ".join(map(str, durations))


@SCHEDULES.register
class WarmupCosine(Schedule):
    """Half a cosine from the learning rate down to a final factor, after a linear warm-up.

    Args:
        final_factor: factor on the learning rate at the end.
        warmup: length of the warm-up.
        warmup_factor: factor on the learning rate at the first step.
    """

    def __init__(
        self,
        *,
        final_factor: float = 0.0,
        warmup: Duration = Duration(1000, "it"),  # noqa: B008 (frozen)
        warmup_factor: float = 0.001,
    ) -> None:
        _check_warmup_factor(warmup_factor)
        if final_factor < 0:
            raise ValueError(f"final_factor must be at least 0, got {final_factor}")
        self.final_factor = final_factor
        self.warmup = warmup
        self.warmup_factor = warmup_factor

    def __call__(self, iteration: int, total: int, epoch_length: float) -> float:
        base = CosineParamScheduler(1.0, self.final_factor)
        return warmed_up(base, iteration, total, self.warmup.iterations(epoch_length), self.warmup_factor)

    def check(self, total: int, epoch_length: float) -> None:
        _warn_of_long_warmup(self.warmup, total, epoch_length)
