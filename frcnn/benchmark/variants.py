"""The configs of a benchmark: their names, what differs between them, and whether they can be compared at all."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from frcnn.checkpoint.config_changes import ConfigChange, config_changes
from frcnn.config import to_plain
from frcnn.errors import UserError
from frcnn.experiment import Config, read_config

CONFIG = "config.yaml"
_OF_THE_BENCHMARK = (
    "hooks.pictures=null",
    "hooks.best=null",
    "hooks.checkpoint.name=SaveCheckpoint",
    "hooks.checkpoint.keep=1",
    "hooks.log.name=LogMetrics",
    "hooks.evaluate.name=Evaluate",
    "hooks.evaluate.every=null",
)
"""Evaluated once, at the end: the best of several evaluations would be picked on the test set."""

LONGEST = 160
"""Characters of a replaced component's options that a difference shows."""

_NOT_A_DIFFERENCE = ("output_dir", "seed")
_NOT_OF_THE_BOXES = "keypoints"  # whether a data set reads them; the boxes to find are the same


@dataclass(frozen=True)
class Variant:
    """One config of a benchmark.

    Args:
        name: the file's, with its folders where two files are called the same.
        config_file: as the person wrote it.
        config: complete; None where it has mistakes.
        error: the mistakes.
    """

    name: str
    config_file: str
    config: Config | None
    error: str | None = None

    def changes_from(self, first: Variant) -> list[ConfigChange]:
        """The keys that differ from the first variant; of a component that was replaced, its options too."""
        if self.config is None or first.config is None:
            return []
        trees = to_plain(first.config.plan), to_plain(self.config.plan)
        return [
            replace(
                change,
                before=_with_options(change.key, change.before, trees[0]),
                now=_with_options(change.key, change.now, trees[1]),
            )
            for change in config_changes(first.config.text, self.config.text)
            if change.key not in _NOT_A_DIFFERENCE
        ]


def _with_options(key: str, shown: str, tree: Any) -> str:
    """`GIoULoss (loss_weight: 10.0)` for a key that ends with name; anything else as it is."""
    *path, last = key.split(".")
    for part in path:
        tree = tree[int(part)] if isinstance(tree, list) else tree.get(part, {}) if isinstance(tree, dict) else {}
    if last != "name" or not isinstance(tree, dict) or len(tree) < 2:
        return shown
    options = {option: value for option, value in tree.items() if option != "name"}
    text = yaml.safe_dump(options, default_flow_style=True, sort_keys=False, width=math.inf).strip()[1:-1]
    return f"{shown} ({text if len(text) <= LONGEST else text[:LONGEST] + ' ...'})"


def read_variants(files: Sequence[str], overrides: Sequence[str], duration: str | None) -> list[Variant]:
    """Reads every config; one with mistakes does not keep the others from being read.

    Args:
        files: YAML files; the first is what the others are compared with.
        overrides: `key=value` for all of them.
        duration: of every training, instead of the config's.

    Raises:
        UserError: a file is named twice.
    """
    words = [*overrides, *_OF_THE_BENCHMARK, *([f"trainer.duration={duration}"] if duration else [])]
    variants = []
    for name, file in zip(short_names(files), files, strict=True):
        try:
            config = read_config(file, words)
            config.build()
            variants.append(Variant(name, file, config))
        except (UserError, OSError) as error:
            variants.append(Variant(name, file, None, str(error)))
    return variants


def short_names(files: Sequence[str]) -> list[str]:
    """`configs/a/x.yaml` is x; beside `configs/b/x.yaml` it is a_x.

    Raises:
        UserError: a file is named twice.
    """
    paths = [Path(os.path.abspath(file)).with_suffix("") for file in files]
    for path, file in zip(paths, files, strict=True):
        if paths.count(path) > 1:
            raise UserError(f"{file} is named twice: a variant is compared with others, not with itself")
    names = [path.name for path in paths]
    for depth in range(2, max((len(path.parts) for path in paths), default=0)):
        names = [
            "_".join(path.parts[-depth:]) if names.count(name) > 1 else name
            for path, name in zip(paths, names, strict=True)
        ]
    return names


def require_comparable(variants: Sequence[Variant]) -> None:
    """Refuses configs that are measured on different images, or by different evaluators.

    Raises:
        UserError: names the first two that differ, and where.
    """
    first, *others = [variant for variant in variants if variant.config is not None]
    for other in others:
        for what, mine, theirs in zip(
            ("data.test", "evaluator"), _measured_on(first), _measured_on(other), strict=True
        ):
            if mine != theirs:
                raise UserError(
                    f"{first.config_file} and {other.config_file} cannot be compared: {what} is {mine} in the one and "
                    f"{theirs} in the other; an AP is only comparable on the same test set"
                )


def _measured_on(variant: Variant) -> tuple[Any, Any]:
    assert variant.config is not None
    plain = to_plain(variant.config.plan)
    tests = {
        name: {key: value for key, value in data["dataset"].items() if key != _NOT_OF_THE_BOXES}
        for name, data in plain["data"]["test"].items()
    }
    return tests, plain["evaluator"]["name"]


def keep_config(variant: Variant, folder: Path) -> Path:
    """Writes the complete config that every run of the variant reads, so that an edited YAML file cannot mix results.

    Args:
        variant: without mistakes.
        folder: of the variant.

    Raises:
        UserError: the folder holds results of another config; lists what differs.
    """
    assert variant.config is not None
    path = folder / CONFIG
    if path.exists():
        changes = [
            c for c in config_changes(path.read_text(encoding="utf-8"), variant.config.text) if c.key != "output_dir"
        ]
        if changes:
            rows = "\n".join(f"  {c.key}: {c.before} in {path}, {c.now} now" for c in changes)
            raise UserError(
                f"{variant.config_file}: {folder} holds runs of another config\n{rows}\n"
                "choose another --output DIR, or remove that folder to run it anew"
            )
        return path
    folder.mkdir(parents=True, exist_ok=True)
    variant.config.save(folder)
    return path
