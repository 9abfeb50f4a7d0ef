"""Arrays that many processes read without copying them."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from frcnn.errors import UserError

ALIGNMENT = 64
Layout = dict[str, tuple[str, tuple[int, ...], int]]


class SharedArrays(Mapping[str, np.ndarray]):
    """Named, read-only arrays in one temporary file that is mapped into memory.

    A pickle of it is the file's path, so workers share the pages under fork, spawn and forkserver alike. The file lies
    in the folder of temporary files (TMPDIR) and not in /dev/shm, which is 64 MB in a container by default.

    Args:
        path: the file.
        layout: name -> (dtype, shape, offset in bytes) of each array in it.
    """

    def __init__(self, path: str, layout: Layout) -> None:
        self.path = path
        self.layout = layout
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @classmethod
    def create(cls, arrays: Mapping[str, np.ndarray]) -> SharedArrays:
        """Writes the arrays to a new temporary file, which this process deletes when it ends or needs it no more.

        Raises:
            UserError: the folder of temporary files cannot hold them.
        """
        size = sum(array.nbytes for array in arrays.values())
        try:
            path, layout = _write(arrays)
        except OSError as error:
            raise UserError(
                f"cannot write {size / 1e6:.0f} MB of annotations to the folder of temporary files "
                f"'{tempfile.gettempdir()}': {error.strerror}; set TMPDIR to a folder with room"
            ) from error
        shared = cls(path, layout)
        weakref.finalize(shared, _delete, path, os.getpid())
        return shared

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, offset = self.layout[name]
        return np.ndarray(shape, dtype, buffer=self._map, offset=offset)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedArrays, (self.path, self.layout)


def _write(arrays: Mapping[str, np.ndarray]) -> tuple[str, Layout]:
    layout: Layout = {}
    handle, path = tempfile.mkstemp(prefix="frcnn-annotations-")
    try:
        with os.fdopen(handle, "wb") as file:
            for name, array in arrays.items():
                layout[name] = (array.dtype.str, array.shape, file.tell())
                file.write(np.ascontiguousarray(array).data)
                file.write(bytes(-file.tell() % ALIGNMENT or ALIGNMENT))
    except OSError:
        _delete(path, os.getpid())
        raise
    return path, layout


def _delete(path: str, owner: int) -> None:
    # A forked child inherits the finaliser of its parent, and must not take the file away from it.
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            os.unlink(path)
