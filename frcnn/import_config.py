"""A detectron2 YAML becomes a file of ours that has been read back and built before it is written."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import torch
import yaml

from frcnn.assembly import build_model
from frcnn.config.dump import dump
from frcnn.config.problems import ConfigError
from frcnn.data.roles import Category
from frcnn.detectron2.settings import Settings
from frcnn.detectron2.translate import translate
from frcnn.detectron2.wording import by_their_keys
from frcnn.errors import UserError
from frcnn.experiment import Config


def import_config(
    source: str | os.PathLike[str], output: str | os.PathLike[str], leave_out: Collection[str] = ()
) -> list[str]:
    """Writes our config for a detectron2 YAML.

    Args:
        source: detectron2's YAML.
        output: the file to write.
        leave_out: keys of detectron2 that need not be carried over.

    Returns:
        what was done, in lines.

    Raises:
        UserError: keys that are not carried over, values that our components refuse, or an output that is there already.
    """
    if Path(output).exists():
        raise UserError(f"--output {output}: is there already; choose another name, or remove it")
    plain = translate(source, leave_out)
    try:
        config = Config.from_text(yaml.safe_dump(plain, sort_keys=False), str(source))
        experiment = config.build()
    except ConfigError as error:
        told = by_their_keys(error.problems, plain, Settings.read(source)[0])
        raise UserError("\n".join(told)) from error
    number = experiment.num_classes or 80
    with torch.device("meta"):
        model = build_model(experiment, [Category(i + 1, str(i)) for i in range(number)], torch.device("meta"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    header = [
        f"Imported from detectron2's {Path(source).name}.",
        f"python tools/train_net.py --config-file {output}",
        *(f"Left out: {key}" for key in leave_out),
    ]
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(dump(config.plan, "\n".join(header)), encoding="utf-8")
    return [f"written: {output}; {parameters:,} parameters with {number} classes"]
