"""One at a time in a folder."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frcnn.errors import UserError

PATIENCE = 120.0
"""Seconds to wait: a run that was asked to stop, or whose benchmark was killed, finishes its step and saves."""


@contextmanager
def only_one_in(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the folder while the block lasts. The system lets go of it when the process ends, however it ends.

    Args:
        folder: must exist.
        patience: seconds to wait for another process.

    Raises:
        UserError: another process still holds it.
    """
    with (folder / "lock").open("w") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"another benchmark is at work in {folder}; choose another --output DIR") from None
                time.sleep(0.2)
        yield
