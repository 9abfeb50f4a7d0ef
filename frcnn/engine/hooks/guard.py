"""Stops at a loss that is not a number, before it reaches the weights, and says what was going on."""

from __future__ import annotations

import json

import torch
from torch import nn

from frcnn import distributed
from frcnn.engine.roles import HOOKS, Hook
from frcnn.engine.trainer import Trainer
from frcnn.errors import UserError


@HOOKS.register
class NaNGuard(Hook):
    """Ends training when a loss is NaN or infinite; the weights are still those of the step before.

    What was known is written to nan_dump.json in the run folder: losses, image ids, learning rate, gradient norm, boxes.
    """

    order = 0

    def __init__(self) -> None:
        pass

    def after_backward(self, trainer: Trainer) -> None:
        assert trainer.facts is not None and trainer.batch is not None
        losses = trainer.facts.losses
        values = torch.stack([value.float() for value in losses.values()])
        if bool(torch.isfinite(values).all()):
            return
        broken = [name for name, value in losses.items() if not bool(torch.isfinite(value))]
        gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        dump = {
            "iteration": trainer.iteration,
            "rank": distributed.rank(),
            "losses": {name: str(float(value)) for name, value in losses.items()},
            "lr": trainer.facts.lr,
            "gradient_norm": str(float(nn.utils.get_total_norm(gradients))),
            "amp": trainer.options.amp,
            "image_ids": [int(i) for i in trainer.batch.image_ids],
            "image_sizes": [list(size) for size in trainer.batch.image_sizes],
            "gt_boxes": [t.boxes.tolist() for t in trainer.batch.targets or ()],
        }
        path = trainer.folder / f"nan_dump{f'_rank{distributed.rank()}' if distributed.rank() else ''}.json"
        path.write_text(json.dumps(dump, indent=1), encoding="utf-8")
        raise UserError(
            f"training stopped at iteration {trainer.iteration}: {', '.join(broken)} is not a number "
            f"(image ids {dump['image_ids']}, learning rate {trainer.facts.lr:g}, gradient norm {dump['gradient_norm']}); "
            f"the weights of the last checkpoint are intact. {_likely_cause(trainer)} What was known is in {path}"
        )


def _likely_cause(trainer: Trainer) -> str:
    if trainer.options.amp == "fp16":
        return "Likely an overflow of float16: try trainer.amp=bf16 or off."
    if trainer.iteration < 1000:
        return "Likely the learning rate is too high for this batch size, or the warm-up too short; try a tenth of it."
    return "Likely the learning rate is too high; try a lower one, or trainer.clip_grad_norm=10."
