"""Pickles of numbers are read; of everything else nothing is run, not even in part."""

from __future__ import annotations

import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frcnn.checkpoint.files import read_weights_file
from frcnn.errors import UserError
from frcnn.pickles import read_numpy_pickle


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def written(folder: Path, content: Any, protocol: int = 2) -> Path:
    path = folder / "weights.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "uint8", "bool", ">f4", ">i8"])
def test_arrays_of_numbers_are_read(tmp_path: Path, protocol: int, dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    read = read_numpy_pickle(written(tmp_path, {"a": array, "t": array.T, "0d": array[0, 1], "n": [1, "x"]}, protocol))
    np.testing.assert_array_equal(read["a"], array)
    np.testing.assert_array_equal(read["t"], array.T)
    assert read["0d"] == array[0, 1]
    assert read["n"] == [1, "x"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_an_empty_array_is_read(tmp_path: Path, protocol: int) -> None:
    assert read_numpy_pickle(written(tmp_path, [np.zeros((0, 4), np.float32)], protocol))[0].shape == (0, 4)


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    """Protocol 2 of Python 2 writes bytes as text: SHORT_BINSTRING where Python 3 calls `_codecs.encode`."""
    raw = np.array([1.5, 2.5], "<f4").tobytes()
    content = (
        b"\x80\x02}U\x01ac" + b"numpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85"
        + b"cnumpy\ndtype\n"
        + b"U\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tbs."
    )
    assert [op.name for op, *_ in pickletools.genops(content)].count("REDUCE") == 2
    assert read_numpy_pickle(written(tmp_path, content))["a"].tolist() == [1.5, 2.5]


def attacks(target: str) -> dict[str, Any]:
    return {
        "os.system": Call(os.system, f"mkdir {target}"),
        "eval": Call(eval, f"__import__('os').mkdir({target!r})"),
        "exec": Call(exec, f"import os; os.mkdir({target!r})"),
        "getattr": Call(getattr, Call(__import__, "os"), "mkdir"),
        "inside an array of objects": np.array([Call(os.mkdir, target)], dtype=object),
        "an array of objects": np.array([{"a": 1}], dtype=object),
        "a structured array": np.zeros(2, dtype=[("a", "f4")]),
        "an array of texts": np.array(["a"]),
        "a tensor": torch.ones(2),
        "a call of numpy.ndarray": Call(np.ndarray, (10**9,)),
        "numpy.load": Call(np.load, target),
        "a class": {"model": np.dtype},
        "bytes of a size": Call(bytes, 10**9),
    }


@pytest.mark.parametrize("name", attacks("x"))
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_anything_else_is_refused_and_nothing_is_run(tmp_path: Path, name: str, suffix: str) -> None:
    target = tmp_path / "attacked"
    path = written(tmp_path, {"model": {"w": np.ones(2), "x": attacks(str(target))[name]}})
    path = path.rename(path.with_suffix(suffix))
    with pytest.raises(UserError, match="only numpy arrays of numbers and plain Python are read from a pickle"):
        read_weights_file(path)
    assert not target.exists()


def test_a_persistent_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="parts that lie outside the file"):
        read_numpy_pickle(written(tmp_path, b"\x80\x02U\x07storageQ."))


def test_an_extension_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="truncated or damaged"):
        read_numpy_pickle(written(tmp_path, b"\x80\x02\x82\x01."))


def test_the_numbers_must_fill_the_shape(tmp_path: Path) -> None:
    honest = pickle.dumps(np.zeros((3, 5), np.float32), protocol=2)
    assert b"K\x03K\x05\x86" in honest
    with pytest.raises(UserError, match=r"15 numbers for an array of shape \[3, 9\]"):
        read_numpy_pickle(written(tmp_path, honest.replace(b"K\x03K\x05\x86", b"K\x03K\x09\x86")))


@pytest.mark.parametrize("size", [1, 20, 100, -1])
def test_a_cut_off_pickle_is_damaged(tmp_path: Path, size: int) -> None:
    path = written(tmp_path, pickle.dumps({"a": np.ones(100, np.float32)}, protocol=2)[:size])
    with pytest.raises(UserError, match=r"truncated or damaged|not a file"):
        read_weights_file(path)
