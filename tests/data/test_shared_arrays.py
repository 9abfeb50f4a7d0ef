"""One file of arrays for all processes."""

import multiprocessing
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from frcnn.data.shared import SharedArrays
from frcnn.errors import UserError

ARRAYS = {"boxes": np.arange(12.0).reshape(3, 4), "none": np.empty((0, 4)), "crowd": np.array([True, False])}


def _sums(shared):
    return [float(shared[name].sum()) for name in shared]


def test_arrays_come_back_and_cannot_be_written():
    shared = SharedArrays.create(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(shared[name], array)
        assert shared[name].dtype == array.dtype
        assert not shared[name].flags.writeable


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_read_the_same_file(method):
    shared = SharedArrays.create({**ARRAYS, "large": np.zeros(1_000_000)})
    assert len(pickle.dumps(shared)) < 1000
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(_sums, (shared,)) == [66.0, 0.0, 1.0, 0.0]
    assert os.path.exists(shared.path)


def test_the_file_goes_with_its_creator_only():
    shared = SharedArrays.create(ARRAYS)
    path, copy = shared.path, pickle.loads(pickle.dumps(shared))
    del copy
    assert os.path.exists(path)
    child = os.fork()
    if not child:
        del shared
        os._exit(0)
    os.waitpid(child, 0)
    assert os.path.exists(path)
    del shared
    assert not os.path.exists(path)


def test_the_file_is_deleted_at_exit():
    code = (
        "import numpy as np; from frcnn.data.shared import SharedArrays;"
        "keep = SharedArrays.create({'a': np.zeros(3)}); print(keep.path)"
    )
    path = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert path
    assert not os.path.exists(path)


def test_no_room_for_temporary_files_is_explained(monkeypatch):
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: os.open("/nowhere/at/all", os.O_WRONLY))
    with pytest.raises(UserError, match="set TMPDIR to a folder with room"):
        SharedArrays.create(ARRAYS)
