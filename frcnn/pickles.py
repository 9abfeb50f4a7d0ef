"""The model zoos' `.pkl` files: numbers in numpy arrays, read by an unpickler that knows these and nothing else.

Not even numpy's own constructors are reached: what a file says of an array (type, shape, bytes) goes to the small
stand-ins below, which check it.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from frcnn.errors import UserError

_NUMBERS = "fiub"  # kinds of numpy types: float, signed and unsigned integer, bool


class _RefusedError(Exception):
    """What is not read, in words."""


class _ElementType:
    """Stands for `numpy.dtype`."""

    def __init__(self, name: str, *_: Any) -> None:
        self.dtype = np.dtype(name) if isinstance(name, str) else np.dtype(object)
        if self.dtype.kind not in _NUMBERS:
            raise _RefusedError(f"an array of {self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])

    def read(self, data: Any) -> np.ndarray:
        """[n] numbers; a text of Python 2 holds its bytes as latin1."""
        return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, self.dtype)


class _Array:
    """Stands for an array: empty when it is made, filled by its state."""

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *_, shape, element_type, is_fortran, data = state
        self.fill(shape, element_type, "F" if is_fortran else "C", data)

    def fill(self, shape: tuple[int, ...], element_type: _ElementType, order: Any, data: Any) -> _Array:
        numbers = element_type.read(data)
        if math.prod(shape) != len(numbers):
            raise ValueError(f"{len(numbers)} numbers for an array of shape {list(shape)}")
        self.array = numbers.reshape(shape, order=order)
        return self


class _NumpyArrayType:
    """Stands for `numpy.ndarray`, which a pickle only names and never calls."""

    def __init__(self, *_: Any) -> None:
        raise _RefusedError("a call of numpy.ndarray")


def _empty_array(*_: Any) -> _Array:
    return _Array()


def _array_from_buffer(data: Any, element_type: _ElementType, shape: tuple[int, ...], order: Any) -> _Array:
    return _Array().fill(shape, element_type, order, data)


def _number(element_type: _ElementType, data: Any) -> Any:
    return element_type.read(data)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _RefusedError(f"a text in {encoding}")
    return text.encode("latin1")


def _no_bytes(*size: Any) -> bytes:
    """How Python 3 writes an empty array for Python 2."""
    if size:
        raise _RefusedError("a call of bytes")
    return b""


def _plain_number(value: Any) -> int:
    if type(value) is not int:
        raise _RefusedError(f"a member {value!r} of an enumeration")
    return value


_ALLOWED: dict[str, Any] = {
    "detectron2.structures.boxes.BoxMode": _plain_number,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    "numpy.ndarray": _NumpyArrayType,
    "numpy.dtype": _ElementType,
    # numpy 2 moved these modules
    **{f"numpy.{core}.multiarray._reconstruct": _empty_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _number for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array_from_buffer for core in ("core", "_core")},
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise _RefusedError(f"'{module}.{name}'") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("parts that lie outside the file, as torch's tensors do")


def read_numpy_pickle(path: Path, convert: Callable[[np.ndarray], Any] = lambda array: array) -> Any:
    """What a `.pkl` of a model zoo holds.

    Args:
        path: a pickle of nested dicts, lists and numpy arrays of numbers; Python 2's too.
        convert: what every array becomes.

    Raises:
        UserError: it holds anything else, or is damaged.
    """
    with path.open("rb") as file:
        try:
            return _with_arrays(_ArrayUnpickler(file, encoding="latin1").load(), convert)
        except _RefusedError as error:
            raise UserError(
                f"{path}: holds {error}; only numpy arrays of numbers and plain Python are read from a pickle, so that "
                "nothing in it is run"
            ) from error
        except Exception as error:  # a damaged pickle can raise anything
            raise UserError(f"{path}: truncated or damaged ({type(error).__name__}: {error})") from error


def _with_arrays(value: Any, convert: Callable[[np.ndarray], Any]) -> Any:
    if isinstance(value, _Array):
        if value.array is None:
            raise ValueError("an array without its numbers")
        return convert(value.array.astype(value.array.dtype.newbyteorder("=")))
    if isinstance(value, dict):
        return {key: _with_arrays(item, convert) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_arrays(item, convert) for item in value)
    if isinstance(value, (_ElementType, type)) or callable(value):
        raise _RefusedError("a type or a function where a value is expected")
    return value
