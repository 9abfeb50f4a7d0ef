"""Several processes: rank, gather, reduce. Launched by torchrun; one process is the normal case and costs nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist


def is_active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_active() else 0


def world_size() -> int:
    return dist.get_world_size() if is_active() else 1


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    return rank() == 0


@contextmanager
def launched_by_environment(device: str) -> Iterator[None]:
    """Joins the processes that torchrun started, and leaves them at the end; does nothing for a single process.

    Args:
        device: "cpu" uses gloo; otherwise NCCL where CUDA is there.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    on_cuda = device != "cpu" and torch.cuda.is_available()
    dist.init_process_group("nccl" if on_cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    if is_active():
        dist.barrier()


def all_gather_objects(value: Any) -> list[Any]:
    """One value of each process, in the order of their ranks."""
    if not is_active():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_objects(value: Any) -> list[Any]:
    """One value of each process, in the order of their ranks, on the main process; an empty list on the others."""
    if not is_active():
        return [value]
    values: list[Any] = [None] * world_size() if is_main() else []
    dist.gather_object(value, values if is_main() else None)
    return values


def broadcast_object(value: Any, source: int = 0) -> Any:
    if not is_active():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=source)
    return box[0]


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes, without gradient.

    A loss that is divided by a count must be divided by the mean count: DistributedDataParallel averages the gradients, so
    the sum over processes then equals one process with the whole batch.
    """
    value = value.detach().clone()
    if is_active():
        dist.all_reduce(value)
        value /= world_size()
    return value


def mean_count(count: torch.Tensor, training: bool, *, at_least: float = 1.0) -> torch.Tensor:
    """What a sum over the batch of this process is divided by, so that the processes together give a mean.

    Args:
        count: of this process, a scalar.
        training: whether the processes are in step. Of a test set they may hold different numbers of batches, so in
            evaluation none waits for another, and the count is its own.
        at_least: of all processes together, so that nothing is never divided by.

    Returns:
        the mean count of the processes, float32.
    """
    mean = mean_over_processes(count.float()) if training else count.float()
    return mean.clamp(min=at_least / world_size())


def concatenated_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The rows of all processes behind one another, in the order of their ranks, without gradient.

    Args:
        value: [n, ...], of the same shape in every process.
    """
    value = value.detach()
    if not is_active():
        return value
    rows = [torch.empty_like(value) for _ in range(world_size())]
    dist.all_gather(rows, value.contiguous())
    return torch.cat(rows)


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Gives every process the buffers of the first one, such as the running statistics of batch norms.

    Each process has counted its own images into them, so without this every process would evaluate another model.
    """
    if is_active():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
