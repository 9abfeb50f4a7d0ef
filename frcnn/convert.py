"""Published weights of other frameworks as a checkpoint of ours, which predicts and is evaluated by itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frcnn.assembly import about_checkpoint, build_model, shortened
from frcnn.checkpoint.conventions import advice, convention_of, differences
from frcnn.checkpoint.finite import not_finite
from frcnn.checkpoint.load import load_weights, res5_where_the_model_has_it
from frcnn.checkpoint.save import save_checkpoint
from frcnn.checkpoint.sources import Weights, resolve_weights
from frcnn.config.dump import to_plain
from frcnn.config.merge import parse_overrides
from frcnn.data.coco import CocoDataset
from frcnn.data.known_categories import ANY_OBJECT, KNOWN_CATEGORIES
from frcnn.data.roles import Category
from frcnn.errors import UserError
from frcnn.experiment import Config, read_config

_BY_NUMBER = {len(categories): name for name, categories in KNOWN_CATEGORIES.items()}
_CLASS_BIASES = ("roi_heads.box_predictor.cls_score.bias", "roi_heads.box_predictor.0.cls_score.bias")


@dataclass(frozen=True)
class ConvertRequest:
    """What a person asked for on the command line.

    Args:
        source: the weights: a path, https://..., torchvision://NAME or detectron2://PATH.
        output: the checkpoint to write; None only prints the table.
        config_file: the YAML file of the model; None writes the weights alone, to start a training from.
        overrides: `key=value` words.
        categories: a name in `KNOWN_CATEGORIES`, or a COCO JSON file that has them; None goes by their number.
        keep_config: whether the config stays as it is where the weights were trained otherwise.
    """

    source: str
    output: str | None
    config_file: str | None
    overrides: tuple[str, ...] = ()
    categories: str | None = None
    keep_config: bool = False


def convert_weights(request: ConvertRequest) -> list[str]:
    """Converts weights, and writes a checkpoint if an output was named.

    Returns:
        what was done, in lines: what went where, which options were set, what was written.

    Raises:
        UserError: no weights, weights that do not fit the model, classes that nobody names.
    """
    _require_new(request.output)
    weights = resolve_weights(request.source)
    if weights.checkpoint is not None:
        raise UserError(f"{request.source}: is a checkpoint of frcnn already: nothing to convert")
    lines = [weights.conversion.table()] if weights.conversion else [f"{request.source}: {weights.kind}"]
    lines += not_finite(weights)
    if request.config_file is None:
        lines += advice(weights)
        state: dict[str, Any] = {"model": dict(weights.state_dict)}
        use = f"--init-weights {request.output} starts a training from it; to predict with it, name a --config-file"
    elif all(name.startswith("backbone.") for name in weights.state_dict):
        raise UserError(
            f"{request.source}: holds a backbone alone, which makes no detector; start a training from it with "
            f"--init-weights {request.source}, or leave --config-file out to write its weights under our names"
        )
    else:
        config, changed = _config_for(weights, request)
        lines += changed
        categories = _categories(weights, request.categories)
        model, summary = _filled_model(config, categories, weights)
        lines.append(summary)
        lines.append(f"{len(categories)} classes: {', '.join(shortened([category.name for category in categories]))}")
        state = {"model": model.state_dict(), **about_checkpoint(config.text, categories)}
        use = f"frcnn predict --weights {request.output} IMAGE"
    if request.output is not None:
        save_checkpoint(request.output, {"converted_from": request.source, **state})
        lines += [f"written: {request.output}", f"  {use}"]
    return lines


def _config_for(weights: Weights, request: ConvertRequest) -> tuple[Config, list[str]]:
    """The config with the options that the weights were trained with, where the user did not say otherwise."""
    assert request.config_file is not None
    config = read_config(request.config_file, request.overrides)
    plain = to_plain(config.plan)
    convention = convention_of(weights)
    if convention is None:
        return config, []
    if request.keep_config:
        return config, advice(weights, plain)
    typed = {".".join(override.keys) for override in parse_overrides(request.overrides)[0]}
    changes = [difference for difference in differences(convention, plain) if difference.key not in typed]
    if not changes:
        return config, []
    config = read_config(request.config_file, [*request.overrides, *(change.override for change in changes)])
    return config, [
        f"options of {request.config_file} that were set as these weights ({convention.trained_by}'s) expect, "
        "unless --keep-config says not to:",
        *(f"  {change.override}    it has {change.found}" for change in changes),
    ]


def _categories(weights: Weights, named: str | None) -> Sequence[Category]:
    number = next((len(weights.state_dict[name]) - 1 for name in _CLASS_BIASES if name in weights.state_dict), None)
    if named is not None:
        categories = KNOWN_CATEGORIES.get(named) or _categories_in(named)
    elif number is None:
        return (ANY_OBJECT,)  # proposals alone
    elif number in _BY_NUMBER:
        categories = KNOWN_CATEGORIES[_BY_NUMBER[number]]
    else:
        raise UserError(
            f"{weights.source}: has {number} classes, and their names are not in the file; say them with --categories "
            f"FILE (a COCO JSON file of the data set) or one of {', '.join(KNOWN_CATEGORIES)}"
        )
    if number not in (None, len(categories)):
        raise UserError(f"{weights.source}: has {number} classes, but --categories {named} has {len(categories)}")
    return categories


def _categories_in(path: str) -> Sequence[Category]:
    if not Path(path).exists():
        raise UserError(
            f"--categories {path}: there is no such file; expected a COCO JSON file, or one of "
            f"{', '.join(KNOWN_CATEGORIES)}"
        )
    dataset = CocoDataset(annotations=os.path.abspath(path), images=os.path.dirname(os.path.abspath(path)))
    return dataset.categories


def _filled_model(config: Config, categories: Sequence[Category], weights: Weights) -> tuple[torch.nn.Module, str]:
    model = build_model(config.build(), categories, torch.device("cpu"))
    state_dict: dict[str, Tensor] = res5_where_the_model_has_it(weights.state_dict, model)
    report = load_weights(model, state_dict, source=weights.source, strict=True)
    return model, report.summary()


def _require_new(output: str | None) -> None:
    if output is not None and Path(output).exists():
        raise UserError(f"--output {output}: is there already; choose another name, or remove it")
