"""Reading a file of weights without running any code in it, and saying what is wrong with one that cannot be read."""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from frcnn.checkpoint.save import is_whole, numbered_checkpoints
from frcnn.errors import UserError
from frcnn.pickles import read_numpy_pickle

_MOST_NAMES = 4
_ZIP_START = b"PK\x03\x04"
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number, before the zip format of 1.6


class DamagedFileError(UserError):
    """A file that was once whole, or should have been."""


def read_weights_file(path: Path) -> Any:
    """What a file of weights holds: tensors and plain Python on the CPU.

    Args:
        path: a file of `torch.save`, old or new format, or a model zoo's `.pkl` of numpy arrays.

    Raises:
        DamagedFileError: truncated, or with a wrong checksum; offers the last whole checkpoint beside it.
        UserError: not there, not such a file, or holding objects that would need code to load.
    """
    try:
        return _read(path)
    except DamagedFileError as error:
        previous = _previous_whole(path)
        if previous is None:
            raise
        raise DamagedFileError(
            f"{error}; the checkpoint to use instead is {previous}, from which --resume-from {previous} goes on"
        ) from error


def _read(path: Path) -> Any:
    _require_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(_LEGACY_START))
    if size == 0:
        raise DamagedFileError(f"{path}: the file is empty")
    if start[:1] == b"\x80" and start != _LEGACY_START:
        return read_numpy_pickle(path, torch.from_numpy)
    if start.startswith(_ZIP_START):
        _check_archive(path, size)
    elif start != _LEGACY_START:
        raise UserError(f"{path}: not a file of torch.save; it begins with {start!r}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(_unsafe_message(path, error)) from error
    except Exception as error:  # a damaged pickle can raise anything: KeyError, EOFError, UnicodeDecodeError, ...
        if "TorchScript" in str(error):
            raise UserError(f"{path}: a TorchScript program, not weights; save its state_dict() instead") from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DamagedFileError(f"{path}: truncated or damaged, {size:,} bytes ({reason})") from error


def _previous_whole(path: Path) -> Path | None:
    """The newest numbered checkpoint beside a damaged one that is whole to its last byte; older ones than it first."""
    numbered = numbered_checkpoints(path.parent)
    older = [other for other in numbered if other.name < path.name]
    newer = [other for other in numbered if other.name > path.name]
    for candidate in [*reversed(older), *reversed(newer)]:
        try:
            _read(candidate)
        except UserError:
            continue
        return candidate
    return None


def _require_file(path: Path) -> None:
    if path.is_dir():
        names = _names_in(path)
        raise UserError(
            f"{path}: a folder; name one checkpoint in it" + (f": {names}" if names else " (it holds no .pth file)")
        )
    if not path.exists():
        names = _names_in(path.parent)
        raise UserError(f"{path}: there is no such file" + (f"; its folder holds {names}" if names else ""))


def _names_in(folder: Path, most: int = 5) -> str:
    names = sorted((p.name for p in folder.glob("*.pth")), reverse=True)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _check_archive(path: Path, size: int) -> None:
    """torch reads the tensors of an archive without looking at their checksums; a flipped bit would become a weight."""
    if not is_whole(path):
        raise DamagedFileError(f"{path}: truncated: {size:,} bytes are there and the end of the file is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise DamagedFileError(f"{path}: damaged: {error}") from error
    if damaged is not None:
        raise DamagedFileError(f"{path}: damaged: the checksum of '{damaged}' in it is wrong")


def _unsafe_message(path: Path, error: Exception) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the old format has no such listing
        names = re.findall(r"(?:GLOBAL|global:?) ([\w.]+\.[\w.]+)", str(error))[:1]
    if any(name.startswith("torch.nn.modules.") for name in names):
        return _whole_module_message(path)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    listed = ", ".join(map(repr, names[:_MOST_NAMES])) + more
    what = f"holds {listed}" if names else "cannot be read as tensors and plain Python"
    return (
        f"{path}: {what}; loading that would run code from the file, so only tensors and plain Python are read. "
        "If you trust the file, save its state dict alone: "
        "torch.save(torch.load(FILE, weights_only=False)['model'], 'weights.pth')"
    )


def _whole_module_message(path: Path) -> str:
    """For `torch.save(model)`, and for a dict with a model in it."""
    module = _class_of_content(path)
    if module is None:
        what, get = "whole modules under its keys", "torch.load(FILE, weights_only=False)['model'].state_dict()"
    else:
        what, get = f"a whole module ({module})", "torch.load(FILE, weights_only=False).state_dict()"
    return (
        f"{path}: holds {what}, not weights; loading that would run code from the file, so it is not read. If you trust the "
        f"file, save the module's weights where its code is installed: torch.save({get}, 'weights.pth')"
    )


def _class_of_content(path: Path) -> str | None:
    """The class of the object that was saved, read without making it; None for a dict, and for the old format."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    first = next(step for step in pickletools.genops(pickled) if step[0].name != "PROTO")
    name = str(first[1]).replace(" ", ".") if first[0].name == "GLOBAL" else None
    return None if name == "collections.OrderedDict" else name
