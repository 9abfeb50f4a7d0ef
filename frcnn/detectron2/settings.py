"""A detectron2 YAML with its bases, as values that know where they were written and whether somebody asked for them."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from typing import Any

from frcnn.config.merge import load_nodes
from frcnn.config.problems import Mark, Problem, join, nearest
from frcnn.config.tree import ListNode, MapNode, Node, Scalar
from frcnn.detectron2.defaults import DEFAULTS, FIXED
from frcnn.detectron2.forms import wrong_form, wrong_length
from frcnn.errors import UserError

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "null": None, "~": None}
_OTHER_TASKS = {
    "MODEL.RETINANET.": "one-stage detectors are no part of this framework",
    "MODEL.SEM_SEG_HEAD.": "semantic segmentation is no part of this framework",
    "MODEL.PANOPTIC_FPN.": "panoptic segmentation is no part of this framework",
}


class Settings:
    """What a detectron2 config says.

    Every key that a translation asks for counts as carried over; `problems()` names the others that were written.

    Args:
        root: the merged nodes.
        source: the file, for messages about what no file says.

    Attributes:
        given: key -> (value, where it was written).
        latest: the key that was asked for last.
    """

    def __init__(self, root: MapNode, source: str) -> None:
        self.source = source
        self.given = dict(_leaves(root, ""))
        self.latest = ""
        self._asked: set[str] = set()
        self._refused: dict[str, str] = {}

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> tuple[Settings, list[Problem]]:
        """The settings of a file and of those it stands on, and mistakes in their YAML."""
        root, problems = load_nodes(path)
        return cls(root, str(path)), problems

    def __getitem__(self, key: str) -> Any:
        """The value of a key: as written, or detectron2's default."""
        self._asked.add(key)
        self.latest = key
        return self.given[key][0] if key in self.given else DEFAULTS[key]

    def written(self, key: str) -> Any:
        """The value of a key where a file says it; None where it is detectron2's default."""
        self._asked.add(key)
        return self.given[key][0] if key in self.given else None

    def without_effect(self, *prefixes: str) -> None:
        """Keys that detectron2 does not look at, given the others: nothing is lost with them."""
        for key in self.given:
            if key.startswith(prefixes):
                self._asked.add(key)

    def refuse(self, key: str, reason: str) -> None:
        """A value that has no counterpart."""
        self._asked.add(key)
        self._refused.setdefault(key, reason)

    def malformed(self) -> list[Problem]:
        """Every value that has not the form of detectron2's default: a translation would stumble over it."""
        problems = []
        for key, (value, mark) in self.given.items():
            whole = next((known for known in DEFAULTS if key.startswith(f"{known}.")), None)
            if whole is not None:
                message = f"expected one value such as {DEFAULTS[whole]!r}, got a mapping with {key[len(whole) + 1 :]}"
                problems.append(Problem(mark, whole, message))
            elif message := wrong_form(key, value) or wrong_length(key, value) or "":
                problems.append(Problem(mark, key, message))
        return problems

    def problems(self, left_out: set[str]) -> list[Problem]:
        """Every key that is not carried over, with its reason, but for those that the user gave up.

        Raises:
            UserError: a key to be given up is neither detectron2's nor in the file.
        """
        for key in sorted(left_out - self.given.keys() - DEFAULTS.keys() - FIXED.keys()):
            guess = nearest(key, [*self.given, *DEFAULTS, *FIXED])
            hint = f"; did you mean {guess}?" if guess else ""
            raise UserError(f"--leave-out {key}: neither the file nor detectron2 has such a key{hint}")
        reasons = dict(self._refused)
        for key, (value, _) in self.given.items():
            if key in FIXED and value != FIXED[key][0]:
                reasons[key] = FIXED[key][1]
            elif key not in FIXED and key not in self._asked:
                reasons[key] = _unknown(key)
        return [
            Problem(self._mark(key), key, f"{self._shown(key)} is not carried over: {reason}")
            for key, reason in reasons.items()
            if key not in left_out
        ]

    def _shown(self, key: str) -> str:
        return repr(self.given[key][0]) if key in self.given else f"detectron2's default {DEFAULTS.get(key)!r}"

    def _mark(self, key: str) -> Mark:
        return self.given[key][1] if key in self.given else Mark(self.source, 1)


def _leaves(node: Node, path: str) -> Iterator[tuple[str, tuple[Any, Mark]]]:
    if not isinstance(node, MapNode):
        return
    for key, child in node.entries.items():
        if isinstance(child, MapNode):
            yield from _leaves(child, join(path, key))
        else:
            yield join(path, key), (_value(child), node.key_marks[key])


def _value(node: Node) -> Any:
    """As detectron2 reads it: YAML's own values, and Python's tuples and numbers in a text."""
    if isinstance(node, ListNode):
        return tuple(_value(item) for item in node.items)
    if isinstance(node, MapNode):
        return {key: _value(child) for key, child in node.entries.items()}
    assert isinstance(node, Scalar)
    text = node.text
    if not node.quoted and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return _tuples(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _unknown(key: str) -> str:
    for section, reason in _OTHER_TASKS.items():
        if key.startswith(section):
            return reason
    guess = nearest(key, {**DEFAULTS, **FIXED})
    return "there is no counterpart here" + (f"; did you mean {guess}?" if guess and guess != key else "")
