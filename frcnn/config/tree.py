"""YAML as nodes that know the file and line they were written on.

Nothing is interpreted here: `1e-4` and `off` stay text until a signature says what they are.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from frcnn.config.problems import ConfigError, Mark, Problem, join

_NULL = re.compile(r"~|null|Null|NULL|")


@dataclass(frozen=True)
class Scalar:
    """A single value, as text. Quotes say that a string is meant."""

    mark: Mark
    text: str
    quoted: bool = False

    @property
    def is_null(self) -> bool:
        return not self.quoted and _NULL.fullmatch(self.text) is not None


@dataclass(frozen=True)
class ListNode:
    """A list."""

    mark: Mark
    items: tuple[Node, ...]


@dataclass(frozen=True)
class MapNode:
    """A mapping; `key_marks` tells where each key was written."""

    mark: Mark
    entries: dict[str, Node]
    key_marks: dict[str, Mark]

    def with_entry(self, key: str, node: Node, mark: Mark) -> MapNode:
        """The same mapping with one entry set."""
        return MapNode(self.mark, {**self.entries, key: node}, {**self.key_marks, key: mark})

    def without(self, key: str) -> MapNode:
        """The same mapping without one entry."""
        return MapNode(self.mark, {k: node for k, node in self.entries.items() if k != key}, self.key_marks)


Node = Scalar | ListNode | MapNode


@dataclass
class Tree:
    """A whole configuration, merged but not yet read, with the mistakes found so far."""

    root: MapNode
    problems: list[Problem] = field(default_factory=list)

    @property
    def imports(self) -> dict[str, Scalar]:
        """The files under `imports:`, by their dotted paths; their texts are absolute paths."""
        listed = self.root.entries.get("imports")
        items = enumerate(listed.items if isinstance(listed, ListNode) else ())
        return {f"imports.{i}": item for i, item in items if isinstance(item, Scalar) and not item.is_null}


def parse(text: str, mark: Mark) -> tuple[Node | None, list[Problem]]:
    """Nodes of a YAML text.

    Args:
        text: one YAML document.
        mark: its file and first line; all nodes of a command line argument share its mark.

    Returns:
        the root, None when the text is empty, and the mistakes that still leave a tree (duplicate keys, tags).

    Raises:
        ConfigError: the text is not YAML.
    """
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([Problem(_at(mark, line), "", f"not YAML: {error.reason}")]) from None
    except yaml.MarkedYAMLError as error:
        position = error.problem_mark or error.context_mark
        why = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError([Problem(_at(mark, position.line + 1 if position else 1), "", f"not YAML: {why}")]) from None
    converter = _Converter(mark)
    return (None if root is None else converter.convert(root, "")), converter.problems


def node_from(value: Any, mark: Mark) -> Node:
    """The node that would be read as `value`: plain Python data, value classes and frozen dataclasses."""
    if dataclasses.is_dataclass(value) and not hasattr(value, "from_text"):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, list | tuple):
        return ListNode(mark, tuple(node_from(item, mark) for item in value))
    if isinstance(value, dict):
        entries = {str(key): node_from(item, mark) for key, item in value.items()}
        return MapNode(mark, entries, dict.fromkeys(entries, mark))
    if value is None:
        return Scalar(mark, "null")
    if isinstance(value, float):
        return Scalar(mark, repr(value).replace("inf", ".inf"))
    return Scalar(mark, str(value).lower() if isinstance(value, bool) else str(value), quoted=isinstance(value, str))


def _at(mark: Mark, line: int) -> Mark:
    return mark if mark.line is None else Mark(mark.source, line)


class _Converter:
    """From PyYAML's nodes to ours."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.problems: list[Problem] = []
        self.open: list[int] = []

    def convert(self, node: yaml.Node, path: str) -> Node:
        mark = _at(self.mark, node.start_mark.line + 1)
        if id(node) in self.open:
            self.problems.append(Problem(mark, path, "an alias (*) stands inside the node that it names"))
            return Scalar(mark, "null")
        if node.tag.rpartition(":")[2] not in ("str", "seq", "map"):
            self.problems.append(
                Problem(mark, path, f"tags such as {node.tag} mean nothing here: write the plain value")
            )
        self.open.append(id(node))
        try:
            if isinstance(node, yaml.ScalarNode):
                return Scalar(mark, node.value, quoted=node.style is not None)
            if isinstance(node, yaml.SequenceNode):
                return ListNode(mark, tuple(self.convert(item, join(path, i)) for i, item in enumerate(node.value)))
            return self.mapping(node, mark, path)
        finally:
            self.open.pop()

    def mapping(self, node: yaml.Node, mark: Mark, path: str) -> MapNode:
        entries: dict[str, Node] = {}
        key_marks: dict[str, Mark] = {}
        for key_node, value_node in node.value:
            key_mark = _at(self.mark, key_node.start_mark.line + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(key_mark, path, "a key must be a single word"))
                continue
            key = key_node.value
            if key in entries:
                first = key_marks[key]
                where = "" if first.line is None else f", first on line {first.line}"
                self.problems.append(Problem(key_mark, join(path, key), f"the key '{key}' stands here twice{where}"))
                continue
            entries[key] = self.convert(value_node, join(path, key))
            key_marks[key] = key_mark
        return MapNode(mark, entries, key_marks)
