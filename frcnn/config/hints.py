"""What to write instead of what was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from frcnn.config.problems import nearest, with_article
from frcnn.config.registry import Registry
from frcnn.config.signature import Option
from frcnn.config.tree import ListNode, Node, Scalar


def shown(node: Node) -> str:
    """What stands at a node, in a few words."""
    if isinstance(node, Scalar):
        return "null" if node.is_null else f"'{node.text}'"
    if isinstance(node, ListNode):
        return f"a list of {len(node.items)}" if node.items else "an empty list"
    return f"a mapping ({', '.join(node.entries)})" if node.entries else "an empty mapping"


def no_option(key: str, options: Mapping[str, Option], wiring: Sequence[str]) -> str:
    """What to tell someone who wrote an option that a component does not have."""
    if key in wiring:
        return f"gets '{key}' from the part it stands in; leave it out"
    guess = nearest(key, options)
    if guess:
        return f"has no option '{key}'; did you mean '{guess}'?"
    return f"has no option '{key}'; " + (f"it has {', '.join(options)}" if options else "it takes none")


def not_a_component(node: Node, registry: Registry[Any]) -> str:
    """What to tell someone who wrote a word, or a list, where a component belongs."""
    expected = f"expected {with_article(registry.role.__name__)}"
    guess = nearest(node.text, registry.components) if isinstance(node, Scalar) else None
    if guess is not None:
        return f"{expected}, got {shown(node)}: write {{name: {guess}}}"
    return f"{expected} such as {{name: {next(iter(registry.names()), '...')}}}, got {shown(node)}"


def wrapped_each(items: Sequence[Scalar], most: int = 2) -> str:
    """`[[16], [32], ...]`: every value of a list as a list of its own."""
    texts = [f"[{item.text}]" for item in items[:most]] + (["..."] if len(items) > most else [])
    return f"[{', '.join(texts)}]"
