"""Ctrl-C and SIGTERM during training."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from frcnn import distributed


@contextmanager
def stop_on_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks for a stop, so that the step is finished and saved; the second one ends at once.

    Several processes would not all see it in the same step, so there the launcher's way of ending them stays.

    Args:
        stop: is told the reason.
    """
    if distributed.world_size() > 1:
        yield
        return
    asked = False

    def ask(number: int, _frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        stop(f"interrupted by {signal.Signals(number).name}")

    previous: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, ask)
    except ValueError:
        pass  # not the main thread: the program that embeds us handles its own signals
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
