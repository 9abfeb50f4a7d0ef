"""Learning-rate schedules: fvcore's parameter schedulers behind a linear warm-up."""

from __future__ import annotations

from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler, ParamScheduler

from frcnn.engine.durations import Duration
from frcnn.engine.roles import SCHEDULES, Schedule


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


@SCHEDULES.register
class WarmupMultiStep(Schedule):
    """Drops the learning rate at milestones, after a linear warm-up.

    Args:
        milestones: when the learning rate drops.
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
        milestones = sorted(m.iterations(epoch_length) for m in self.milestones)
        milestones = [m for m in milestones if m < total]
        values = [self.gamma**i for i in range(len(milestones) + 1)]
        base = MultiStepParamScheduler(values, num_updates=total, milestones=milestones)
        return warmed_up(base, iteration, total, self.warmup.iterations(epoch_length), self.warmup_factor)


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
