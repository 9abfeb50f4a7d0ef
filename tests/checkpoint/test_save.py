"""Checkpoints are plain, whole or absent, and the last good one is never removed."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from frcnn.checkpoint.load import load_checkpoint
from frcnn.checkpoint.save import checkpoint_path, find_last, keep_last, save_checkpoint
from frcnn.errors import UserError


def test_what_was_saved_is_loaded_with_weights_only(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    rng = np.random.default_rng(0).bit_generator.state  # holds a 128-bit integer
    path = tmp_path / "run" / "best.pth"
    save_checkpoint(path, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": rng, "none": None})
    loaded = torch.load(path, weights_only=True)
    assert type(loaded["model"]) is dict
    assert torch.equal(loaded["model"]["weight"], model.weight)
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert loaded["rng"] == rng
    assert loaded["format"] == "frcnn checkpoint"
    assert loaded["format_version"] == 1


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"hooks": {"best": {"metric": np.float64(1.0)}}}, "'hooks.best.metric' is a numpy.float64"),
        ({"args": [1, argparse.Namespace()]}, r"'args\[1\]' is a argparse.Namespace"),
        ({"model": {(1, 2): 0}}, "'model' has a key of type builtins.tuple"),
        ({"sizes": torch.Size([1])}, "'sizes' is a torch.Size"),
        ({"classes": {"a"}}, "'classes' is a builtins.set"),
    ],
)
def test_what_is_not_plain_is_refused_by_name(tmp_path: Path, state: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        save_checkpoint(tmp_path / "best.pth", state)
    assert list(tmp_path.iterdir()) == []


def test_a_view_is_saved_without_the_tensor_behind_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pth", {"row": torch.zeros(1000, 1000)[0]})
    assert (tmp_path / "best.pth").stat().st_size < 10_000


def test_tied_weights_are_saved_once(tmp_path: Path) -> None:
    weight = torch.zeros(100_000)
    save_checkpoint(tmp_path / "best.pth", {"model": {"a": weight, "b": weight}})
    assert (tmp_path / "best.pth").stat().st_size < 410_000


def test_keep_last_removes_the_oldest_and_leaves_the_best(tmp_path: Path) -> None:
    for iteration in (5, 100, 20, 3):
        save_checkpoint(checkpoint_path(tmp_path, iteration), {"iteration": iteration})
    save_checkpoint(tmp_path / "best.pth", {})
    removed = keep_last(tmp_path, 2)
    assert [path.name for path in removed] == ["checkpoint_00000005.pth", "checkpoint_00000003.pth"]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.pth", "checkpoint_00000020.pth", "checkpoint_00000100.pth"]
    assert find_last(tmp_path) == tmp_path / "checkpoint_00000100.pth"


def test_keep_last_never_removes_the_last_whole_checkpoint(tmp_path: Path) -> None:
    for iteration in (1, 2, 3, 4):
        save_checkpoint(checkpoint_path(tmp_path, iteration), {"iteration": iteration})
    for iteration in (3, 4):
        os.truncate(checkpoint_path(tmp_path, iteration), 300)
    keep_last(tmp_path, 2)
    assert sorted(path.name[-5:] for path in tmp_path.iterdir()) == ["2.pth", "3.pth", "4.pth"]
    keep_last(tmp_path, 1)
    assert load_checkpoint(checkpoint_path(tmp_path, 2))["iteration"] == 2


def test_keep_last_wants_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        keep_last(tmp_path, 0)


def test_an_empty_folder_has_no_last_checkpoint(tmp_path: Path) -> None:
    assert find_last(tmp_path) is None
    assert find_last(tmp_path / "absent") is None
    (tmp_path / "best.pth").touch()
    (tmp_path / "checkpoint_00000001.pth.incomplete").touch()
    assert find_last(tmp_path) is None


SAVE_FOREVER = """
import sys, torch
from frcnn.checkpoint.save import save_checkpoint
path, step = sys.argv[1], 0
while True:
    step += 1
    save_checkpoint(path, {"iteration": step, "weights": torch.full((2_000_000,), float(step))})
    print(step, flush=True)
"""


def size_of(path: Path) -> int:
    """Bytes in a file that may be renamed at any moment; -1 where it is not."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def test_a_kill_in_the_middle_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, 1)
    command = [sys.executable, "-c", SAVE_FOREVER, str(path)]
    killed_while_writing = 0
    for attempt in range(6):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            assert process.stdout is not None
            process.stdout.readline()
            incomplete = path.with_name(path.name + ".incomplete")
            deadline = time.monotonic() + 20
            while size_of(incomplete) <= attempt % 3 * 2_000_000:
                assert time.monotonic() < deadline
            process.send_signal(signal.SIGKILL)
        killed_while_writing += incomplete.exists()
        checkpoint = load_checkpoint(path)
        assert (checkpoint["weights"] == checkpoint["iteration"]).all()
    assert killed_while_writing > 0
    save_checkpoint(path, {"iteration": 0})
    assert [other.name for other in tmp_path.iterdir()] == [path.name]


SAVE_TO_A_FULL_DISK = """
import resource, signal, sys, torch
from frcnn.checkpoint.save import save_checkpoint
from frcnn.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(sys.argv[1], {"weights": torch.zeros(1_000_000)})
except UserError as error:
    print(error)
"""


def test_a_full_disk_is_one_sentence_and_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    save_checkpoint(path, {"iteration": 1})
    command = [sys.executable, "-c", SAVE_TO_A_FULL_DISK, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{path}: the checkpoint could not be written" in result.stdout
    assert load_checkpoint(path)["iteration"] == 1
    assert [other.name for other in tmp_path.iterdir()] == ["best.pth"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="could not be written"):
        save_checkpoint(tmp_path / "file" / "best.pth", {})
