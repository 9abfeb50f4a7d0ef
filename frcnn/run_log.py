"""What the log says of a run, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from frcnn import distributed
from frcnn.checkpoint.report import group_names
from frcnn.data.roles import Category
from frcnn.engine.trainer import Trainer
from frcnn.modeling.layers import FrozenBatchNorm2d


def about_device(device: torch.device) -> str:
    """Where the run computes."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    processes = f", {distributed.world_size()} processes" if distributed.world_size() > 1 else ""
    return f"device: {device} ({name}{processes}), torch {torch.__version__}"


def about_run(trainer: Trainer, experiment: Any, categories: Sequence[Category]) -> list[str]:
    """Two lines: the data, and the model and the length of the training."""
    train = experiment.data.train
    parameters = sum(p.numel() for p in trainer.model.parameters())
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    tests = ", ".join(f"{t.name} {len(t.dataset):,}" for t in trainer.test_sets) or "none"
    names = ", ".join(c.name for c in categories[:8]) + (", ..." if len(categories) > 8 else "")
    epochs = trainer.max_iterations / trainer.epoch_length
    return [
        f"{len(train.dataset):,} training images, test images: {tests}; {len(categories)} classes: {names}",
        f"{parameters:,} parameters, {trainable:,} trainable; {trainer.max_iterations} iterations of "
        f"{train.batch_size} images ({epochs:.3g} epochs), amp {trainer.options.amp}",
    ]


def about_resuming(trainer: Trainer) -> list[str]:
    """What was restored, and the learning rate that the checkpoint's optimizer goes on with."""
    factor = trainer.schedule(trainer.iteration, trainer.max_iterations, trainer.epoch_length)
    base = trainer.optimizer.param_groups[0]["initial_lr"]
    return [
        f"resumed at iteration {trainer.iteration} of {trainer.max_iterations}: "
        "weights, optimizer, schedule, hooks and the place in the data",
        f"learning rate {base:g} as in the checkpoint, {base * factor:.3g} at this iteration",
    ]


def frozen_at_random(model: nn.Module) -> str | None:
    """A warning about what a model with random weights will never learn; None if there is nothing of the kind.

    Args:
        model: whose weights are random.
    """
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    norms = sum(isinstance(module, FrozenBatchNorm2d) for module in model.modules())
    parts = []
    if frozen:
        where = ", ".join(group_names(frozen, [name for name, _ in model.named_parameters()])[:4])
        parts.append(f"{len(frozen)} parameter tensors stay at random values ({where})")
    if norms:
        parts.append(f"{norms} FrozenBN layers have no statistics of a training")
    if not parts:
        return None
    return (
        f"warning: the run starts with random weights, of which some are frozen: {' and '.join(parts)}; "
        "set init_weights, or train all of them with norm: BN or GN and freeze_at: 0"
    )


def ending(trainer: Trainer) -> str:
    """Whether the run is done, or why it stopped."""
    if trainer.stop_reason is None:
        return "done"
    how = "; go on with --resume" if trainer.interrupted else ""
    return f"stopped at iteration {trainer.iteration} of {trainer.max_iterations}: {trainer.stop_reason}{how}"
