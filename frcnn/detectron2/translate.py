"""A detectron2 YAML as one of ours."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from frcnn.config.problems import ConfigError
from frcnn.detectron2.data import data, evaluator
from frcnn.detectron2.model import model
from frcnn.detectron2.settings import Settings
from frcnn.detectron2.training import hooks, optimizer, schedule, top_level, trainer
from frcnn.errors import UserError


def translate(path: str | os.PathLike[str], leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Our config for what a detectron2 YAML and its bases say.

    Args:
        path: the YAML file; its `_BASE_` is read too.
        leave_out: keys that need not be carried over.

    Returns:
        the config as plain data.

    Raises:
        UserError: keys that are not carried over, each with its place and the reason; a file that is no detectron2 YAML.
    """
    settings, problems = Settings.read(path)
    if not any(key.startswith(("MODEL.", "SOLVER.", "DATASETS.")) for key in settings.given):
        raise UserError(
            f"{path}: has none of detectron2's sections MODEL, SOLVER and DATASETS: is it a detectron2 YAML?"
        )
    if malformed := settings.malformed():
        raise ConfigError(problems + malformed)
    try:
        config = {
            "data": data(settings),
            "model": model(settings),
            "optimizer": optimizer(settings),
            "schedule": schedule(settings),
            "trainer": trainer(settings),
            "evaluator": evaluator(settings),
            "hooks": hooks(settings),
            **top_level(settings),
        }
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(
            f"{path}: a value has not the form that detectron2 gives it, {settings.latest} or one near it: {error}"
        ) from error
    problems += settings.problems(set(leave_out))
    if problems:
        raise ConfigError(problems)
    return config
