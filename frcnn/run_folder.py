"""The folder of a run, and its log."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frcnn import distributed
from frcnn.config.imports import FOLDER as IMPORTS
from frcnn.errors import UserError

logger = logging.getLogger("frcnn")

LOG, CONFIG = "log.txt", "config.yaml"


@contextmanager
def new_run(wanted: Path) -> Iterator[Path]:
    """The folder of a new run: the one wanted, or with a number added if that holds something; the log goes there.

    After a mistake that was found before anything was done, the folder is gone again, unless the user had made it.

    Args:
        wanted: as in the config or on the command line.

    Raises:
        UserError: it cannot be made.
    """
    try:
        unused = unused_folder(wanted)
        folder, was_there = distributed.broadcast_object((unused, unused.exists()))
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{wanted}: the run folder cannot be made ({error.strerror}); choose another with --output-dir DIR"
        ) from error
    try:
        with logging_to(folder):
            yield folder
    except (UserError, OSError):
        if distributed.is_main():
            _take_back(folder, keep=was_there)
        raise


@contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Messages go to the folder's log.txt too, and so does the mistake of the user that ends the run."""
    log_to(folder)
    try:
        yield
    except (UserError, OSError) as error:
        logger.error("error: %s", error)
        raise


def folder_to_resume(wanted: Path, *, exact: bool) -> Path:
    """The folder of the run to go on with.

    Args:
        wanted: as in the config or on the command line.
        exact: whether the person named the folder; then a run in it is meant, not a newer one beside it.

    Raises:
        UserError: there is none.
    """
    folder = wanted if exact and (wanted / CONFIG).exists() else latest_folder(wanted)
    if not folder.is_dir():
        raise UserError(f"no checkpoint to resume from: {folder} does not exist; start the run without --resume")
    return folder


def unused_folder(wanted: Path) -> Path:
    """The folder itself, or the first of `name_2`, `name_3`, ... that does not hold anything yet."""
    folder, number = wanted, 2
    while folder.exists() and any(folder.iterdir()):
        folder, number = wanted.with_name(f"{wanted.name}_{number}"), number + 1
    return folder


def latest_folder(wanted: Path) -> Path:
    """The newest of `name`, `name_2`, `name_3`, ... that holds a run; the name itself if none does.

    An evaluation that was written with --output-dir may have taken a number too.
    """
    folder, latest, number = wanted, wanted, 2
    while folder.exists():
        latest = folder if (folder / CONFIG).exists() else latest
        folder, number = wanted.with_name(f"{wanted.name}_{number}"), number + 1
    return latest


def _take_back(folder: Path, *, keep: bool) -> None:
    """Empties a new run folder that holds nothing but what every run begins with, and removes it unless it is to stay."""
    if not {path.name for path in folder.iterdir()} <= {LOG, CONFIG, IMPORTS}:
        return
    log_to(None)
    for name in (LOG, CONFIG):
        (folder / name).unlink(missing_ok=True)
    if (folder / IMPORTS).exists():
        shutil.rmtree(folder / IMPORTS)
    if not keep:
        folder.rmdir()


def log_to(folder: Path | None) -> None:
    """Messages go to stdout and, of the main process, to the run folder's log.txt.

    Errors go to log.txt alone: the program prints them.
    """
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    logger.setLevel(logging.INFO if distributed.is_main() else logging.WARNING)
    console = logging.StreamHandler(sys.stdout)
    console.addFilter(lambda record: record.levelno < logging.ERROR)
    handlers: list[logging.Handler] = [console]
    if folder is not None and distributed.is_main():
        handlers.append(logging.FileHandler(folder / LOG, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
