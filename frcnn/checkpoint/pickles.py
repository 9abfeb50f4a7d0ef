"""The model zoos' `.pkl` files: numpy arrays by name, read by an unpickler that knows arrays and nothing else."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frcnn.errors import UserError

_RECONSTRUCT = np.empty(0).__reduce__()[0]  # numpy has moved this function between modules
_SCALAR = np.float32(0).__reduce__()[0]


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
    ("_codecs", "encode"): _encode,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None


def read_numpy_pickle(path: Path) -> Any:
    """What a `.pkl` of a model zoo holds, its arrays as tensors.

    Args:
        path: a pickle of nested dicts, lists and numpy arrays; Python 2's too.

    Raises:
        UserError: it holds anything else, or is damaged.
    """
    with path.open("rb") as file:
        try:
            return _with_tensors(_ArrayUnpickler(file, encoding="latin1").load())
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{path}: holds '{error}'; only numpy arrays and plain Python are read from a pickle"
            ) from error
        except Exception as error:  # a damaged pickle can raise anything
            raise UserError(f"{path}: truncated or damaged ({type(error).__name__}: {error})") from error


def _with_tensors(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise pickle.UnpicklingError(f"an array of {value.dtype}")
        return torch.from_numpy(np.array(value, order="C", dtype=value.dtype.newbyteorder("=")))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _with_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_tensors(item) for item in value)
    return value
