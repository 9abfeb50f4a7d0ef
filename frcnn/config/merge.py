"""Merging: a file stands on its `_BASE_`, and an argument of the command line on both.

Of several bases each wins over those before it, and the child over all: key by key; lists are replaced whole; a node that
names another component starts afresh.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from frcnn.config.detectron2_keys import answer_detectron2_keys
from frcnn.config.problems import ConfigError, Mark, Problem, join
from frcnn.config.tree import ListNode, MapNode, Node, Scalar, Tree, parse
from frcnn.errors import UserError

BASE_KEY = "_BASE_"


def load_tree(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Tree:
    """The nodes of a YAML file, its bases and the command line, merged.

    Args:
        path: the YAML file.
        overrides: `key=value`, or `key` and `value` one after the other.

    Raises:
        UserError: a file is missing or is not YAML. Smaller mistakes are kept in the tree and reported when it is read.
    """
    root, problems = load_nodes(path)
    return _finish(Tree(root, problems), overrides)


def load_nodes(path: str | os.PathLike[str]) -> tuple[MapNode, list[Problem]]:
    """The nodes of a YAML file and of its bases, merged, and the mistakes that still leave nodes.

    Raises:
        UserError: a file is missing or is not YAML.
    """
    problems: list[Problem] = []
    return _load_file(str(path), None, (), problems), problems


def parse_tree(text: str, source: str, overrides: Sequence[str] = ()) -> Tree:
    """The same from a text, such as the config in a checkpoint.

    Args:
        text: YAML; it needs no base, having been written by `dump`.
        source: the file that holds it; messages name it, and paths in the text are relative to it.
        overrides: as in `load_tree`.
    """
    tree = Tree(MapNode(Mark(source, 1), {}, {}))
    tree.root = _load_text(text, source, (), tree.problems)
    return _finish(tree, overrides)


def merge(base: Node, child: Node) -> Node:
    """The child over its base."""
    if not (isinstance(base, MapNode) and isinstance(child, MapNode)) or _names_another(base, child):
        return child
    merged = {
        key: merge(base.entries[key], node) if key in base.entries else node for key, node in child.entries.items()
    }
    return MapNode(child.mark, {**base.entries, **merged}, {**base.key_marks, **child.key_marks})


def _names_another(base: MapNode, child: MapNode) -> bool:
    old, new = base.entries.get("name"), child.entries.get("name")
    return isinstance(old, Scalar) and isinstance(new, Scalar) and old.text != new.text


def _finish(tree: Tree, overrides: Sequence[str]) -> Tree:
    arguments, problems = parse_overrides(overrides)
    tree.problems += problems
    for override in arguments:
        try:
            root = _assign(tree.root, override.keys, override, "")
        except ConfigError as error:
            tree.problems += error.problems
        else:
            assert isinstance(root, MapNode)
            tree.root = root
    tree.root, problems = answer_detectron2_keys(tree.root)
    tree.problems += problems
    tree.root = _anchor_imports(tree.root)
    return tree


def _load_file(path: str, named_at: Mark | None, chain: tuple[Path, ...], problems: list[Problem]) -> MapNode:
    """Reads a file and those it stands on; `chain` is the way from the first file to this one."""
    real = Path(path).resolve()
    if named_at is not None and real in chain:
        circle = " -> ".join(file.name for file in (*chain[chain.index(real) :], real))
        raise ConfigError([Problem(named_at, BASE_KEY, f"the files stand on each other in a circle: {circle}")])
    try:
        text = real.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = (
            "the file is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else (error.strerror or str(error))
        )
        if named_at is None:
            raise UserError(f"{path}: {reason}; expected the YAML file of a run") from None
        raise ConfigError([Problem(named_at, BASE_KEY, f"{path}: {reason}")]) from None
    return _load_text(text, path, (*chain, real), problems)


def _load_text(text: str, source: str, chain: tuple[Path, ...], problems: list[Problem]) -> MapNode:
    mark = Mark(source, 1)
    node, found = parse(text, mark)
    problems += found
    if not isinstance(node, MapNode):
        was = "the file is empty" if node is None else "a config is a mapping (key: value)"
        raise ConfigError([Problem(node.mark if node else mark, "", was)])
    base = node.entries.get(BASE_KEY)
    if base is None:
        return node
    bases = base.items if isinstance(base, ListNode) else (base,)
    merged: Node = MapNode(mark, {}, {})
    for named in bases:
        if not isinstance(named, Scalar) or named.is_null:
            problems.append(Problem(named.mark, BASE_KEY, "expected a path, relative to this file, or a list of them"))
            continue
        path = os.path.normpath(os.path.join(os.path.dirname(source), os.path.expanduser(named.text)))
        merged = merge(merged, _load_file(path, named.mark, chain, problems))
    merged = merge(merged, node.without(BASE_KEY))
    assert isinstance(merged, MapNode)
    return merged


@dataclass(frozen=True)
class Override:
    """One argument of the command line: the keys on the way to a value, and the value."""

    keys: tuple[str, ...]
    value: Node
    mark: Mark


def parse_overrides(arguments: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """Reads `key=value` and pairs `key value`; sorts them so that a node is replaced before its options are set."""
    overrides, problems = [], []
    rest = list(arguments)
    while rest:
        typed = rest.pop(0)
        key, equals, text = typed.partition("=")
        if not equals and rest and not key.startswith("-"):
            text = rest.pop(0)
            typed = f"{key} {text}"
        elif not equals:
            problems.append(Problem(Mark(typed), "", "expected key=value, or a key and its value"))
            continue
        try:
            value, found = parse(text, Mark(typed))
        except ConfigError as error:
            problems += error.problems
            continue
        problems += found
        overrides.append(Override(tuple(key.split(".")), value or Scalar(Mark(typed), text), Mark(typed)))
    # `pooler.name=ROIPool` starts its node afresh, so it comes before `pooler.resolution=7` whatever the order typed.
    overrides.sort(key=lambda o: (len(o.keys) - (o.keys[-1] == "name"), o.keys[-1] != "name"))
    return overrides, problems


def _assign(node: Node | None, keys: tuple[str, ...], override: Override, path: str) -> Node:
    """`node` with the value of an override set under `keys`."""
    if not keys:
        return override.value if node is None else merge(node, override.value)
    key, rest = keys[0], keys[1:]
    if node is None or (isinstance(node, Scalar) and node.is_null):
        node = MapNode(override.mark, {}, {})
    if isinstance(node, MapNode):
        if key == "name" and not rest:
            return merge(node, MapNode(override.mark, {key: override.value}, {key: override.mark}))
        mark = override.mark if not rest else node.key_marks.get(key, override.mark)
        return node.with_entry(key, _assign(node.entries.get(key), rest, override, join(path, key)), mark)
    if isinstance(node, ListNode):
        if not (key.isascii() and key.isdigit() and int(key) < len(node.items)):
            indices = f"one of {', '.join(map(str, range(len(node.items))))}" if node.items else "but it is empty"
            complaint = f"'{path}' is a list and takes an index ({indices}), got '{key}'"
            raise ConfigError([Problem(override.mark, path, complaint)])
        items = list(node.items)
        items[int(key)] = _assign(items[int(key)], rest, override, join(path, key))
        return replace(node, items=tuple(items))
    raise ConfigError([Problem(override.mark, path, f"'{path}' is the single value '{node.text}' and has no '{key}'")])


def _anchor_imports(root: MapNode) -> MapNode:
    """Makes the paths under `imports:` absolute, each from the file that says so, or from here on the command line."""
    imports = root.entries.get("imports")
    if not isinstance(imports, ListNode):
        return root
    return root.with_entry(
        "imports", replace(imports, items=tuple(map(_anchor, imports.items))), root.key_marks["imports"]
    )


def _anchor(node: Node) -> Node:
    if not isinstance(node, Scalar) or node.is_null:
        return node
    folder = "" if node.mark.line is None else os.path.dirname(node.mark.source)
    return replace(node, text=os.path.abspath(os.path.join(folder, os.path.expanduser(node.text))), quoted=True)
