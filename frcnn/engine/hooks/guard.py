"""Stops at a loss or a gradient that is not a number, before it reaches the weights, and says what was going on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from frcnn import distributed
from frcnn.checkpoint.save import find_last
from frcnn.engine.roles import HOOKS, Hook
from frcnn.engine.trainer import Trainer
from frcnn.errors import UserError


@HOOKS.register
class NaNGuard(Hook):
    """Ends training when a loss or the gradient is NaN or infinite; such a step changes no weight and is never saved.

    With amp fp16 only losses are looked at: there the gradient scaler skips the steps whose gradient is too large for it.
    What was known is written to nan_dump.json in the run folder: losses, image ids, learning rate, gradient norm, boxes,
    and the parameters whose gradient was bad.
    """

    order = 0

    def __init__(self) -> None:
        pass

    def after_backward(self, trainer: Trainer) -> None:
        assert trainer.facts is not None
        losses = torch.stack([value.float() for value in trainer.facts.losses.values()])
        finite = torch.isfinite(losses).all()
        if trainer.options.amp != "fp16":
            finite &= torch.isfinite(_gradient_norm(trainer))
        # the processes agree, or those that go on would wait for ever; reading the answer is the step's one synchronisation
        if distributed.mean_over_processes(finite.float()).item() < 1:
            _stop(trainer)


def _gradient_norm(trainer: Trainer) -> Tensor:
    assert trainer.facts is not None
    if trainer.facts.grad_norm is not None:
        return trainer.facts.grad_norm
    return nn.utils.get_total_norm([p.grad for p in trainer.model.parameters() if p.grad is not None])


def _stop(trainer: Trainer) -> None:
    assert trainer.facts is not None and trainer.batch is not None
    facts, batch = trainer.facts, trainer.batch
    bad_losses = [name for name, value in facts.losses.items() if not bool(torch.isfinite(value))]
    bad_gradients = [
        name for name, p in trainer.model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())
    ]
    dump = {
        "iteration": trainer.iteration,
        "rank": distributed.rank(),
        "losses": {name: str(float(value)) for name, value in facts.losses.items()},
        "lr": facts.lr,
        "gradient_norm": str(float(_gradient_norm(trainer))),
        "bad_gradients": bad_gradients,
        "amp": trainer.options.amp,
        "image_ids": [int(i) for i in batch.image_ids],
        "image_sizes": [list(size) for size in batch.image_sizes],
        "gt_boxes": [t.boxes.tolist() for t in batch.targets or ()],
    }
    found = distributed.all_gather_objects((bad_losses, dump["image_ids"]))
    image_ids = [image_id for names, ids in found for image_id in ids if names or not any(names for names, _ in found)]
    everywhere = dict.fromkeys(name for names, _ in found for name in names)
    path = trainer.folder / f"nan_dump{f'_rank{distributed.rank()}' if distributed.rank() else ''}.json"
    path.write_text(json.dumps(dump, indent=1), encoding="utf-8")
    raise UserError(
        f"training stopped at iteration {trainer.iteration}: {', '.join(everywhere) or _gradient_of(bad_gradients)} is not a "
        f"finite number (image ids {image_ids}, learning rate {facts.lr:g}, gradient norm {dump['gradient_norm']}). "
        f"{_what_is_left(trainer.folder)} {_likely_cause(trainer)} What was known is in {path}"
    )


def _gradient_of(names: Sequence[str], most: int = 3) -> str:
    """In words; each gradient may be finite, and their norm be not."""
    more = f" and {len(names) - most} more parameters" if len(names) > most else ""
    return f"the gradient of {', '.join(names[:most])}{more}" if names else "the norm of the gradient"


def _what_is_left(folder: Path) -> str:
    last = find_last(folder)
    return f"{last} is from before it." if last else "No checkpoint had been saved yet."


def _likely_cause(trainer: Trainer) -> str:
    amp = trainer.options.amp
    if amp == "fp16":
        return "Likely an overflow of float16: try trainer.amp=bf16 or off."
    if _rate_is_innocent(trainer):
        precision = (
            f" or in the precision: try trainer.amp=off, which computes in float32, not {amp}" if amp != "off" else ""
        )
        return (
            "The learning rate has hardly changed a weight yet, so look for the cause in the weights the run starts from, in "
            f"these images and their boxes{precision}."
        )
    if trainer.iteration < 1000:
        return "Likely the learning rate is too high for this batch size, or the warm-up too short; try a tenth of it."
    return "Likely the learning rate is too high; try a lower one, or trainer.clip_grad_norm=10."


def _rate_is_innocent(trainer: Trainer) -> bool:
    """At the first step, and in the first half of a warm-up."""

    def factor(iteration: int) -> float:
        return trainer.schedule(iteration, trainer.max_iterations, trainer.epoch_length)

    if trainer.iteration == 0:
        return True
    return factor(trainer.iteration) < min(0.5, factor(min(trainer.iteration + 1, trainer.max_iterations - 1)))
