"""What a person asked for, and which config that means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frcnn.errors import UserError
from frcnn.experiment import Config, read_config
from frcnn.run_folder import CONFIG


@dataclass(frozen=True)
class Request:
    """What a person asked for on the command line.

    Args:
        config_file: the YAML file, or None to take the run folder's or the checkpoint's.
        overrides: `key=value` words, or pairs of words.
        output_dir: the run folder, instead of the config's; of an evaluation, where its files go.
        resume: go on with a run.
        resume_from: the checkpoint to go on from, instead of the newest; only with resume.
        weights: the checkpoint to evaluate.
        imports: project files that the checkpoint's own config needs.
        init_weights: weights to start from, instead of the config's.
        device: as a person writes it.
    """

    config_file: str | None
    overrides: tuple[str, ...] = ()
    output_dir: str | None = None
    resume: bool = False
    resume_from: str | None = None
    weights: str | None = None
    imports: tuple[str, ...] = ()
    init_weights: str | None = None
    device: str = "auto"


def find_config(request: Request, checkpoint: Mapping[str, Any] | None = None) -> Config:
    """The config file that was named, or else the checkpoint's own, or that of the run to go on with.

    Args:
        request: what was asked for.
        checkpoint: what `request.weights` holds, if it is a checkpoint of ours.

    Raises:
        UserError: mistakes in the config, or there is none.
    """
    if request.config_file:
        return read_config(request.config_file, request.overrides)
    if checkpoint is not None and checkpoint.get("config"):
        return Config.from_text(
            checkpoint["config"], f"config in {request.weights}", request.overrides, request.imports
        )
    folder = Path(request.resume_from).parent if request.resume_from else request.output_dir
    if request.resume and folder:
        path = Path(folder) / CONFIG
        if not path.exists():
            raise UserError(f"no run to resume in {folder}: it holds no {CONFIG}")
        return read_config(path, request.overrides)
    raise UserError(f"{request.weights} carries no config: say which with --config-file FILE")
