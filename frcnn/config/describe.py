"""`--help KEY`: what can be written at a key, told from the signatures."""

from __future__ import annotations

import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from frcnn.config.problems import Mark, join, nearest, with_article
from frcnn.config.registry import Registry, location, registries, registry_of
from frcnn.config.signature import (
    REQUIRED,
    Option,
    is_dict,
    is_list,
    is_record,
    is_union,
    is_value_class,
    options_of,
    role_in,
    type_text,
    wiring_of,
)
from frcnn.config.tree import ListNode, MapNode, Node, Scalar, Tree, node_from
from frcnn.errors import UserError

WIDTH = 100


@dataclass(frozen=True)
class Place:
    """A position in a configuration.

    Args:
        path: dotted path.
        type: what the signature asks for here.
        node: what a config says here, if one is at hand.
        option: the option whose value stands here, if it is one.
        target: the component that is meant, if its name was part of the key.
    """

    path: str
    type: Any
    node: Node | None = None
    option: Option | None = None
    target: type | None = None


def describe(key: str, root: type, tree: Tree | None = None) -> str:
    """What can be written at a key.

    Args:
        key: dotted path (`model.proposal_generator.matcher`), or one that starts with the name of a component
            (`FPN.out_channels`); empty for the root.
        root: the dataclass that is the root of a configuration.
        tree: a config; at a role it says which component is meant. Without it, a role with several components needs the
            component's name in the key (`model.FasterRCNN.backbone`).

    Raises:
        UserError: there is no such key; names the nearest one.
    """
    words = key.split(".") if key else []
    place = Place("", root, tree.root if tree else None)
    if words and words[0] not in options_of(root):
        named = list(_components_called(words[0]))
        if len(named) == 1:
            place, words = named[0], words[1:]
    for word in words:
        place = _step(place, word)
    return "\n".join(_page(place))


def _components_called(name: str) -> Iterator[Place]:
    for registry in registries():
        if name in registry.components:
            yield Place(name, registry.role, target=registry.components[name])


def _step(place: Place, word: str) -> Place:
    """The place one key further down."""
    wanted = _without_null(place.type)
    path, entries = join(place.path, word), place.node.entries if isinstance(place.node, MapNode) else {}
    if is_list(wanted):
        items = place.node.items if isinstance(place.node, ListNode) else ()
        index = int(word) if word.isdecimal() else 0
        item = Place(place.path, typing.get_args(wanted)[0], items[index] if index < len(items) else None)
        # An index may be left out: `model.necks.out_channels` is about the first neck.
        return Place(path, item.type, item.node) if word.isdecimal() else _step(item, word)
    if is_dict(wanted):
        return Place(path, typing.get_args(wanted)[1], entries.get(word))
    role = role_in(wanted)
    if role is None and (not is_record(wanted) or is_value_class(wanted)):
        raise UserError(f"{place.path} is {type_text(place.type)}: nothing can be written under it")
    registry = registry_of(role) if role else None
    if registry and place.target is None and word in registry.components:
        return Place(path, role, _node_of(place.node, word), target=registry.components[word])
    target = _target(place) if role else wanted
    if target is None:
        assert registry is not None
        raise UserError(
            f"{place.path} is {with_article(type_text(role))}, and the options depend on which: ask for one of "
            + ", ".join(join(place.path, name) for name in registry.names())
        )
    options = options_of(target, role)
    if word not in options:
        in_question = [registry] if registry else [] if place.path else registries()
        if not place.path and any(word in (one.variable, one.role.__name__) for one in registries()):
            raise UserError(f"'{word}' is a role, not a key of a config: `frcnn list {word}` lists its components")
        guess = nearest(word, [*options, *(name for some in in_question for name in some.components)])
        hint = f"did you mean '{guess}'?" if guess else f"there are {', '.join(options) or 'none'}"
        owner = target.__name__ if role else place.path or "a config"
        raise UserError(f"{owner} has no option '{word}'; {hint}")
    return Place(path, options[word].type, entries.get(word), options[word])


def _page(place: Place) -> Iterator[str]:
    """Title, then what can stand here, then the options of what does."""
    wanted = _without_null(place.type)
    while is_list(wanted) or is_dict(wanted):
        wanted = _without_null(typing.get_args(wanted)[-1 if is_dict(wanted) else 0])
    role = role_in(wanted)
    if place.target is None:
        yield from _title(place)
    inner = Place(place.path, wanted, _only_child(place.node), target=place.target)
    target = _target(inner) if role else wanted if is_record(wanted) and not is_value_class(wanted) else None
    if role and place.target is None:
        registry = registry_of(role)
        assert registry is not None
        yield from _choices(registry, target)
    if target is not None:
        yield from _component(target, role)


def _title(place: Place) -> Iterator[str]:
    option = place.option
    yield f"{place.path or 'a config'}: {_type_and_default(place.type, option)}" if option or place.path else "a config"
    if option and option.doc:
        yield from wrapped(option.doc, "    ")
    if isinstance(place.node, Scalar):
        yield f"    in this config: {place.node.text} ({place.node.mark})"


def _choices(registry: Registry[Any], chosen: type | None) -> Iterator[str]:
    yield f"    {registry.role.__name__}: {first_line(registry.role)}"
    yield "components:"
    for name, component in sorted(registry.components.items()):
        mark = " <- in this config" if component is chosen and len(registry.components) > 1 else ""
        yield from wrapped(f"{name}: {first_line(component)}{mark}", "    ")


def _component(target: type, role: type | None) -> Iterator[str]:
    if role is not None:
        yield ""
        yield from wrapped(
            f"{target.__name__}, {with_article(role.__name__)} ({location(target)}): {first_line(target)}", ""
        )
        if wiring := wiring_of(target, role):
            yield f"  from the part it stands in: {', '.join(wiring)}"
    for option in options_of(target, role).values():
        yield f"  {option.name}: {_type_and_default(option.type, option)}"
        yield from wrapped(option.doc, "      ")


def _type_and_default(wanted: Any, option: Option | None) -> str:
    if option is None:
        return type_text(wanted)
    return f"{type_text(wanted)}, " + (
        "required" if option.default is REQUIRED else f"default {default_text(option.default)}"
    )


def default_text(default: Any) -> str:
    """A default as it would be written in YAML."""
    return _flow(node_from(default, Mark("default", 0)))


def _flow(node: Node) -> str:
    if isinstance(node, ListNode):
        return f"[{', '.join(map(_flow, node.items))}]"
    if isinstance(node, MapNode):
        return "{" + ", ".join(f"{key}: {_flow(child)}" for key, child in node.entries.items()) + "}"
    return node.text or "''"


def _target(place: Place) -> type | None:
    """The component meant at a role: the one in the key, in the config, or the only one there is."""
    if place.target is not None:
        return place.target
    role = role_in(_without_null(place.type))
    registry = registry_of(role) if role else None
    assert registry is not None
    components: Mapping[str, type] = registry.components
    name = place.node.entries.get("name") if isinstance(place.node, MapNode) else None
    if isinstance(name, Scalar) and name.text in components:
        return components[name.text]
    return next(iter(components.values())) if len(components) == 1 else None


def _node_of(node: Node | None, name: str) -> Node | None:
    """The node, if it is of the component that was asked for."""
    chosen = node.entries.get("name") if isinstance(node, MapNode) else None
    return node if isinstance(chosen, Scalar) and chosen.text == name else None


def _only_child(node: Node | None) -> Node | None:
    """What a list or mapping of parts holds, when it holds one."""
    children: tuple[Node, ...] = ()
    if isinstance(node, ListNode):
        children = node.items
    elif isinstance(node, MapNode) and "name" not in node.entries:
        children = tuple(node.entries.values())
    return children[0] if len(children) == 1 else node


def _without_null(wanted: Any) -> Any:
    """X of `X | None`; of another union its first arm that has keys below it."""
    if not is_union(wanted):
        return wanted
    arms = [arm for arm in typing.get_args(wanted) if arm is not types.NoneType]
    return next((arm for arm in arms if role_in(arm) or is_record(arm) or is_list(arm) or is_dict(arm)), arms[0])


def first_line(thing: type) -> str:
    """The first sentence of the docstring of a class, not of its parents."""
    return inspect.cleandoc(vars(thing).get("__doc__") or "").partition("\n\n")[0].replace("\n", " ")


def wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False)
