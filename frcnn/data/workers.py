"""Worker processes: started quietly, and mourned in words when one is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from frcnn.data.collate import PackedBatch
from frcnn.data.images import opencv
from frcnn.data.samples import SampleSource
from frcnn.data.stream import Draw
from frcnn.errors import UserError
from frcnn.structures import Batch

Delivery = PackedBatch | UserError

CAUSES = {
    -signal.SIGKILL: "killed (signal 9), most likely because memory ran out: lower num_workers or batch_size",
    -signal.SIGBUS: "ended by a bus error (signal 7), because /dev/shm is full: enlarge it (docker run --shm-size=8g), "
    "or lower num_workers (0 needs no shared memory)",
    -signal.SIGSEGV: "ended by a crash in compiled code (signal 11): num_workers: 0 shows where",
}


@dataclass(frozen=True)
class WorkerOptions:
    """How batches are prepared.

    Args:
        num_workers: worker processes; 0 loads in this one.
        pin_memory: whether batches lie in pinned memory, for copies to CUDA beside the computation.
        start_method: fork, spawn or forkserver; the platform's own if not given.
    """

    num_workers: int = 0
    pin_memory: bool = False
    start_method: str | None = None


def deliver(source: SampleSource, batches: Iterable[list[Draw]], options: WorkerOptions) -> Iterator[Batch]:
    """The batches in order, prepared ahead by workers that live as long as the iterator.

    Raises:
        UserError: a sample cannot be read, or a worker was lost.
    """
    opencv()  # a missing library is told here rather than in a worker
    loader: DataLoader = DataLoader(
        source,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=options.num_workers,
        collate_fn=source.collate,
        pin_memory=options.pin_memory,
        worker_init_fn=_prepare_worker,
        multiprocessing_context=options.start_method if options.num_workers else None,
        generator=torch.Generator(),  # without one, starting workers draws from the global generator
    )
    iterator = _start(loader)
    try:
        yield from (packed.unpack() for packed in _checked(iterator))
    finally:
        # Left to the garbage collector, the queues may go first, and each worker is then waited for in vain, 5 seconds.
        getattr(iterator, "_shutdown_workers", lambda: None)()


def _checked(iterator: Iterator[Delivery]) -> Iterator[PackedBatch]:
    while True:
        try:
            packed = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            raise _explain(error, iterator) from error
        if isinstance(packed, UserError):
            raise packed
        yield packed


def _start(loader: DataLoader) -> Iterator[Delivery]:
    """Starts the workers, without PyTorch's handler that raises in the midst of any line when one of them dies.

    The death is seen a few seconds later by the call that waits for the next batch.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    signal.signal(signal.SIGCHLD, handler if handler is not None else signal.SIG_DFL)
    return iterator


def _prepare_worker(worker: int) -> None:
    """One thread each; and Ctrl-C, which the terminal sends to every process, is for the main one to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    opencv().setNumThreads(0)
    torch.set_num_threads(1)


def _explain(error: RuntimeError, iterator: Any) -> Exception:
    """The death of a worker as a person can understand it; other errors as they are."""
    if "exited unexpectedly" not in str(error) and "killed by signal" not in str(error):
        return error
    codes = [worker.exitcode for worker in getattr(iterator, "_workers", []) if worker.exitcode]
    cause = CAUSES.get(codes[0], f"ended with exit code {codes[0]}, and its own words are above") if codes else "ended"
    return UserError(f"a data loading worker was lost: {cause}")
