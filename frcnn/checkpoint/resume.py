"""Whether a run can go on from a checkpoint: is it under way, and is it still the same run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frcnn.checkpoint.config_changes import ConfigChange, config_changes
from frcnn.checkpoint.load import load_checkpoint
from frcnn.checkpoint.save import find_last, numbered_checkpoints
from frcnn.errors import UserError


def last_checkpoint(folder: str | os.PathLike[str]) -> Path:
    """The checkpoint that a run goes on from, unless another is named.

    Raises:
        UserError: the folder holds none.
    """
    folder = Path(folder)
    path = find_last(folder)
    if path is None:
        state = "holds no checkpoint_*.pth" if folder.is_dir() else "does not exist"
        raise UserError(f"no checkpoint to resume from: {folder} {state}; start the run without --resume")
    return path


def load_to_resume(path: Path, max_iterations: int) -> dict[str, Any]:
    """A checkpoint of a run that has something left to do.

    Args:
        path: the checkpoint.
        max_iterations: how long the run is by the config that is to go on.

    Returns:
        The checkpoint.

    Raises:
        UserError: a damaged checkpoint, a run that is finished or was stopped early, or one of another length.
    """
    checkpoint = load_checkpoint(path)
    if "max_iterations" not in checkpoint:
        raise UserError(
            f"{path}: holds weights to predict with, as best.pth does, and not the state of a run to resume"
        )
    done, planned = checkpoint["iteration"], checkpoint["max_iterations"]
    instead = f"use --eval-only --weights {path} to evaluate it, or --init-weights {path} to train on from it"
    if planned != max_iterations:
        raise UserError(
            f"{path}: its run is {planned:,} iterations long and the config asks for {max_iterations:,}; a schedule "
            f"of another length is another run. Set trainer.duration back to {planned}it to resume, or start a new run "
            f"with --init-weights {path}"
        )
    if done >= planned and not checkpoint.get("moment_is_due"):
        raise UserError(
            f"{path}: the run is finished ({done:,} of {planned:,} iterations), nothing is left to resume; {instead}"
        )
    if reason := checkpoint.get("stop_reason"):
        raise UserError(
            f"{path}: the run was stopped early, at iteration {done:,} of {planned:,}: {reason}; nothing is left to "
            f"resume; {instead}"
        )
    return checkpoint


def require_same_config(checkpoint: Mapping[str, Any], config: str, path: Path) -> list[ConfigChange]:
    """Refuses to go on with another config, under which the end would be that of neither run.

    Args:
        checkpoint: from `load_to_resume`.
        config: the complete config that is to go on, as YAML.
        path: of the checkpoint, for the message.

    Returns:
        the changes that leave the training as it is, such as num_workers.

    Raises:
        UserError: other changes; lists each with both values.
    """
    changes = config_changes(checkpoint["config"], config)
    refused = [change for change in changes if not change.harmless]
    if refused:
        rows = "\n".join(f"  {change}" for change in refused)
        raise UserError(
            f"{path}: cannot go on with another config than its own\n{rows}\n"
            f"set them back to resume, or start a new run with --init-weights {path}"
        )
    return changes


def set_later_aside(path: Path) -> list[Path]:
    """Renames the checkpoints behind one that a run goes on from, so that they are not taken for its newest.

    Args:
        path: the checkpoint that the run goes on from.

    Returns:
        what they are called now: `checkpoint_00000300.pth.old`.
    """
    numbered = numbered_checkpoints(path.parent)
    if path not in numbered:
        return []
    return [later.replace(f"{later}.old") for later in numbered[numbered.index(path) + 1 :]]
