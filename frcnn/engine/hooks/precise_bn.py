"""Exact statistics for batch norms before an evaluation (Wu and Johnson, https://arxiv.org/abs/2105.07576, section 3)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from frcnn import distributed
from frcnn.engine.durations import Duration
from frcnn.engine.roles import HOOKS, Hook
from frcnn.engine.trainer import Trainer
from frcnn.modeling.modes import evaluation_mode
from frcnn.precision import autocast
from frcnn.structures import DrawKey

logger = logging.getLogger(__name__)

BatchNorm = nn.BatchNorm2d | nn.SyncBatchNorm


@HOOKS.register
class PreciseBN(Hook):
    """Replaces the running statistics of batch norms by those of many training batches under the present weights.

    A running average follows weights that have changed since; this one does not. The batches are the first ones of the
    training set, the same each time. The detector looks at them as in evaluation, but normalises by the batch: heads see
    the proposals that they will see in tests.

    Args:
        every: how often; give what Evaluate has, so that it happens just before. null is at the end only.
        num_batches: how many batches are looked at.
    """

    order = 15

    def __init__(self, *, every: Duration | None = None, num_batches: int = 200) -> None:
        if num_batches < 1:
            raise ValueError(f"num_batches must be at least 1, got {num_batches}")
        self.every = every
        self.num_batches = num_batches

    def before_train(self, trainer: Trainer) -> None:
        if not learning_batch_norms(trainer.model):
            logger.warning("PreciseBN: the model has no batch norm that learns its statistics; it changes nothing")

    def between_steps(self, trainer: Trainer) -> None:
        if trainer.is_due(self.every):
            update_statistics(trainer.evaluated_model, trainer, self.num_batches)


def learning_batch_norms(model: nn.Module) -> list[BatchNorm]:
    """The batch norms whose statistics are not frozen."""
    return [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]


def update_statistics(model: nn.Module, trainer: Trainer, num_batches: int) -> None:
    """Gives every batch norm the mean and variance of all that it sees in some training batches.

    Args:
        model: with the present weights.
        trainer: whose training set, device and precision are used; nothing of it changes.
        num_batches: how many batches of the training's size.
    """
    norms = learning_batch_norms(model)
    if not norms:
        return
    with ExitStack() as stack, torch.inference_mode(False), torch.no_grad(), evaluation_mode(model):
        moments = [stack.enter_context(observed(norm)) for norm in norms]
        for norm in norms:
            norm.train()
        for batch in islice(trainer.loader.from_the_start(), num_batches):
            # drawn by image, as in evaluation: nothing that training draws is used up
            batch = replace(batch, targets=None, draw=DrawKey(images=tuple(batch.image_ids)))
            with autocast(trainer.options.amp, trainer.device):
                model(batch.to(trainer.device, non_blocking=True))
    for norm, sums in zip(norms, moments, strict=True):
        sums.write_to(norm)


class Moments:
    """Sums over all pixels that a norm has seen, in float64."""

    def __init__(self, norm: BatchNorm) -> None:
        assert norm.running_mean is not None and norm.num_batches_tracked is not None
        device = norm.running_mean.device
        self.sums = torch.zeros(2, norm.num_features, dtype=torch.float64, device=device)  # of x and of x^2
        self.count = torch.zeros(1, dtype=torch.float64, device=device)
        self.batches_tracked = norm.num_batches_tracked.clone()

    def add(self, x: Tensor) -> None:
        """[B, C, H, W]."""
        x = x.double()
        self.sums += torch.stack((x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3))))
        self.count += x.numel() // x.shape[1]

    def write_to(self, norm: BatchNorm) -> None:
        """Sets the running statistics, from all processes; a norm that saw nothing keeps its own."""
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        norm.num_batches_tracked.copy_(self.batches_tracked)
        sums = distributed.mean_over_processes(torch.cat((self.sums.flatten(), self.count))) * distributed.world_size()
        total, squares = sums[:-1].reshape(2, -1)
        count = sums[-1]
        if count < 2:
            return
        mean = total / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((squares / count - mean.square()).clamp(min=0) * count / (count - 1))


@contextmanager
def observed(norm: BatchNorm) -> Iterator[Moments]:
    """Collects what a norm is given; its running statistics are put back if the block fails."""
    moments = Moments(norm)
    saved = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    handle = norm.register_forward_pre_hook(lambda _, inputs: moments.add(inputs[0]))
    try:
        yield moments
    except BaseException:
        for name, buffer in norm.named_buffers():
            buffer.copy_(saved[name])
        raise
    finally:
        handle.remove()
