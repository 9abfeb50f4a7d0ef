"""What differs between the config of a checkpoint and the one that is to go on, and which of it changes the training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

_ABSENT = object()
_NOT_COMPARED = ("imports",)  # paths: the run folder names its own copies
_HARMLESS = re.compile(
    r"output_dir|init_weights|trainer\.duration"  # the number of iterations is compared instead
    r"|data\.train\.(num_workers|start_method)|(data\.test|evaluator)(\..+)?"
)
_WATCHING = {"LogMetrics", "Evaluate", "ValidationLoss", "SavePictures", "SaveCheckpoint", "Profile", "NaNGuard"}
"""Hooks that change nothing of a training, nor keep a state that another option would make false."""


@dataclass(frozen=True)
class ConfigChange:
    """One key that stands differently in two configs.

    Args:
        key: dotted path.
        before: the value in the checkpoint.
        now: the value in the config that is to go on.
        harmless: whether the training goes on as it would have.
    """

    key: str
    before: str
    now: str
    harmless: bool

    def __str__(self) -> str:
        return f"{self.key}: {self.before} in the checkpoint, {self.now} now"


def config_changes(before: str, now: str) -> list[ConfigChange]:
    """Every key whose value differs.

    Args:
        before: the complete config in a checkpoint, as YAML.
        now: the complete config that is to go on, as YAML.

    Returns:
        the changes in the order of the first config. Of a component that was replaced, its name alone.
    """
    # nothing is interpreted: both texts were written by the same program
    old, new = (yaml.load(text, Loader=yaml.BaseLoader) for text in (before, now))
    hooks = [_names_of_hooks(config) for config in (old, new)]
    watching = {name for name in {**hooks[0], **hooks[1]} if {h[name] for h in hooks if name in h} <= _WATCHING}
    changes = []
    for key, old_value, new_value in _differences(old, new, ""):
        root, _, rest = key.partition(".")
        if root in _NOT_COMPARED:
            continue
        harmless = _HARMLESS.fullmatch(key) or (root == "hooks" and rest.partition(".")[0] in watching)
        changes.append(ConfigChange(key, _shown(old_value), _shown(new_value), bool(harmless)))
    return changes


def _names_of_hooks(config: dict[str, Any]) -> dict[str, str]:
    return {key: hook["name"] for key, hook in config.get("hooks", {}).items() if isinstance(hook, dict)}


def _differences(before: Any, now: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if before == now:
        return
    prefix = f"{key}." if key else ""
    if isinstance(before, dict) and isinstance(now, dict):
        if before.get("name") != now.get("name"):
            yield f"{prefix}name", before.get("name", _ABSENT), now.get("name", _ABSENT)
            return
        for name in {**before, **now}:
            yield from _differences(before.get(name, _ABSENT), now.get(name, _ABSENT), f"{prefix}{name}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differences(old, new, f"{prefix}{index}")
    else:
        yield key, before, now


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    if isinstance(value, dict):
        return value.get("name") or "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value)
