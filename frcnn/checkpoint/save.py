"""Writing checkpoints: tensors and plain Python only, never half a file under the final name.

A checkpoint is one dict. Its keys, all given by the trainer:

    model             state dict of the detector
    ema               averaged weights under the same names, if the run keeps them (absent otherwise)
    optimizer, ...    whatever the trainer needs to go on
    hooks             state of the hooks
    iteration         finished training steps
    max_iterations    steps of the whole run
    categories        [{"id": 1, "name": "RBC"}, ...] in the order of the classes 0..K-1
    config            the complete config as YAML text

`format` and `format_version` are added here.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frcnn.errors import UserError

FORMAT = "frcnn checkpoint"
FORMAT_VERSION = 1
INCOMPLETE = ".incomplete"
_NUMBERED = re.compile(r"checkpoint_(\d+)\.pth")
_PLAIN = (bool, int, float, str, bytes, type(None))


def checkpoint_path(folder: str | os.PathLike[str], iteration: int) -> Path:
    """`<folder>/checkpoint_00000920.pth`."""
    return Path(folder) / f"checkpoint_{iteration:08d}.pth"


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint so that a kill at any moment leaves the file as it was or as it will be.

    The dict goes to `<name>.incomplete` beside the file, is flushed to the disk, and renamed. What a killed save left
    behind is removed first.

    Args:
        path: the file to write; its folder is made if needed.
        state: see the top of this module.

    Raises:
        TypeError: a value that `torch.load(weights_only=True)` would refuse; names its key and its type.
        UserError: the file cannot be written (disk full, no permission).
    """
    path = Path(path)
    plain = {"format": FORMAT, "format_version": FORMAT_VERSION, **_as_plain(state, "")}
    incomplete = path.with_name(path.name + INCOMPLETE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f"*.pth{INCOMPLETE}"):
            leftover.unlink()
        with incomplete.open("wb") as file:
            torch.save(plain, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(incomplete, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        with suppress(OSError):
            incomplete.unlink()
        raise UserError(
            f"{path}: the checkpoint could not be written: {error}; earlier checkpoints are untouched"
        ) from error


def numbered_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints `checkpoint_<iteration>.pth` of a run, oldest first."""
    found = [(int(match[1]), path) for path in Path(folder).glob("*.pth") if (match := _NUMBERED.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def find_last(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint of the highest iteration in a run's folder, or None. `best.pth` is not one to resume from."""
    return next(reversed(numbered_checkpoints(folder)), None)


def keep_last(folder: str | os.PathLike[str], k: int) -> list[Path]:
    """Removes all but the last k numbered checkpoints; a whole one always stays.

    If none of the last k is a whole file (a disk can lose what it had promised), the newest whole one before them is
    kept too.

    Args:
        folder: the run's folder.
        k: how many to keep, at least 1.

    Returns:
        The files that were removed.
    """
    if k < 1:
        raise ValueError(f"the number of checkpoints to keep must be at least 1, got {k}")
    newest_first = numbered_checkpoints(folder)[::-1]
    kept, old = newest_first[:k], newest_first[k:]
    if not any(is_whole(path) for path in kept):
        survivor = next((path for path in old if is_whole(path)), None)
        old = [path for path in old if path != survivor]
    for path in old:
        path.unlink()
    return old


def is_whole(path: Path) -> bool:
    """Whether the end of the file is there: the index of the archive is its last part. Reads a few hundred bytes."""
    return zipfile.is_zipfile(path)


def _as_plain(value: Any, key: str) -> Any:
    """The same value in plain dicts, lists and tuples, with detached tensors; refuses everything else by name."""
    if type(value) in _PLAIN:
        return value
    if type(value) in (Tensor, nn.Parameter):
        tensor = value.detach()
        # a view would be saved with the whole storage behind it
        is_view = tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
        return tensor.clone() if is_view else tensor
    if type(value) in (dict, OrderedDict) or (key == "" and isinstance(value, Mapping)):
        for name in value:
            if type(name) not in (str, int):
                raise TypeError(f"checkpoint{_at(key)} has a key of type {_type_name(name)}; keys must be str or int")
        return {name: _as_plain(item, f"{key}.{name}" if key else str(name)) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_as_plain(item, f"{key}[{index}]") for index, item in enumerate(value))
    raise TypeError(
        f"checkpoint{_at(key)} is a {_type_name(value)}; only tensors, dict, list, tuple, str, bytes, int, float, bool "
        "and None can be saved, so that loading a checkpoint never runs code"
    )


def _at(key: str) -> str:
    return f" entry '{key}'" if key else ""


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut; not every system can open a folder for it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
