"""Reading: a node becomes what the signature asks for, and every mistake is collected on the way."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from frcnn.config.hints import no_option, not_a_component, shown, wrapped_each
from frcnn.config.plan import Call, DictPlan, ListPlan, Plan, Value
from frcnn.config.problems import ConfigError, Mark, Problem, RegistrationError, join, nearest, with_article
from frcnn.config.registry import Factory, location, registries, registry_of
from frcnn.config.scalars import parse_scalar
from frcnn.config.signature import (
    REQUIRED,
    Option,
    is_dict,
    is_list,
    is_part,
    is_record,
    is_union,
    is_value_class,
    options_of,
    role_in,
    type_text,
    wiring_of,
)
from frcnn.config.tree import ListNode, MapNode, Node, Scalar, Tree, node_from

_NOTHING = Value(None)


def read(tree: Tree, wanted: type) -> Call:
    """Reads a whole tree as a frozen dataclass.

    Args:
        tree: from `load_tree`, its imports loaded.
        wanted: the dataclass that is the root of the configuration.

    Raises:
        ConfigError: every mistake in the files, on the command line, and against the signatures.
    """
    reader = _Reader(imports_failed=any(p.path.startswith("imports") for p in tree.problems))
    plan = reader.read(tree.root, wanted, "")
    if tree.problems or reader.problems:
        raise ConfigError([*tree.problems, *reader.problems])
    assert isinstance(plan, Call)
    return plan


class _Reader:
    """Reads nodes as types; what cannot be read leaves a problem."""

    def __init__(self, imports_failed: bool = False) -> None:
        self.imports_failed = imports_failed
        self.problems: list[Problem] = []

    def read(self, node: Node, wanted: Any, path: str) -> Plan:
        if is_union(wanted):
            return self.union(node, wanted, path)
        if is_list(wanted):
            return self.sequence(node, wanted, path)
        if is_dict(wanted):
            return self.mapping(node, wanted, path)
        role = role_in(wanted)
        if role is not None:
            return self.component(node, role, path, is_open=typing.get_origin(wanted) is Factory)
        if is_record(wanted) and not is_value_class(wanted):
            return self.record(node, wanted, path)
        return self.scalar(node, wanted, path)

    def fail(self, mark: Mark, path: str, message: str) -> Plan:
        self.problems.append(Problem(mark, path, message))
        return _NOTHING

    def expected(self, node: Node, what: str, path: str) -> Plan:
        return self.fail(node.mark, path, f"expected {what}, got {shown(node)}")

    def scalar(self, node: Node, wanted: Any, path: str) -> Plan:
        if not isinstance(node, Scalar):
            return self.expected(node, type_text(wanted), path)
        if is_value_class(wanted):
            return self.value(node, wanted, path)
        if typing.get_origin(wanted) is Literal:
            return self.choice(node, typing.get_args(wanted), path)
        value = parse_scalar(node, wanted)
        if value is not REQUIRED:
            return Value(value)
        unquoted = parse_scalar(Scalar(node.mark, node.text), wanted)
        if node.quoted and unquoted is not REQUIRED:
            return self.fail(
                node.mark, path, f"expected {type_text(wanted)}, got the string '{node.text}': leave out the quotes"
            )
        return self.expected(node, type_text(wanted), path)

    def value(self, node: Scalar, wanted: Any, path: str) -> Plan:
        try:
            return Value(wanted.from_text(node.text))
        except ValueError as error:
            return self.fail(node.mark, path, f"expected {with_article(wanted.__name__)}, got {shown(node)}: {error}")

    def choice(self, node: Scalar, choices: tuple[Any, ...], path: str) -> Plan:
        for choice in choices:
            if node.text == choice if isinstance(choice, str) else parse_scalar(node, type(choice)) == choice:
                return Value(choice)
        guess = nearest(node.text, map(str, choices))
        hint = f"; did you mean '{guess}'?" if guess else ""
        allowed = ", ".join(map(str, choices))
        return self.fail(node.mark, path, f"expected one of {allowed}, got {shown(node)}{hint}")

    def union(self, node: Node, wanted: Any, path: str) -> Plan:
        """The first arm that can be read; `str`, which takes anything, comes last."""
        arms = sorted(typing.get_args(wanted), key=_rank)
        attempts: list[tuple[Any, list[Problem]]] = []
        for arm in arms:
            attempt = _Reader(self.imports_failed)
            plan = attempt.read(node, arm, path)
            if not attempt.problems:
                return plan
            attempts.append((arm, attempt.problems))
        # Of an arm that fits in shape, the mistakes lie deeper: these are the ones to tell.
        fitting = [problems for _, problems in attempts if all(p.path != path for p in problems)]
        real = [(arm, problems) for arm, problems in attempts if arm is not types.NoneType]
        if len(real) == 1:
            fitting = [real[0][1]]
        if fitting:
            fewest: list[Problem] = min(fitting, key=len)
            self.problems += fewest
            return _NOTHING
        return self.expected(node, type_text(wanted), path)

    def sequence(self, node: Node, wanted: Any, path: str) -> Plan:
        arguments, kind = typing.get_args(wanted), typing.get_origin(wanted)
        if not isinstance(node, ListNode):
            hint = f": write [{node.text}]" if isinstance(node, Scalar) and self.is_item(node, wanted) else ""
            return self.fail(node.mark, path, f"expected {type_text(wanted)}, got {shown(node)}{hint}")
        if kind is tuple and Ellipsis not in arguments:
            if len(node.items) != len(arguments):
                return self.expected(node, f"{len(arguments)} values ({type_text(wanted)})", path)
            item_types: Sequence[Any] = arguments
        else:
            item_types = arguments[:1] * len(node.items)
        flat = [item for item in node.items if isinstance(item, Scalar)]
        if flat and len(flat) == len(node.items) and all(map(self.is_item, flat, item_types)):
            got = f"a list of {len(flat)} single values: write {wrapped_each(flat)}"
            return self.fail(node.mark, path, f"expected {type_text(wanted)}, got {got}")
        items = [self.read(n, t, join(path, i)) for i, (n, t) in enumerate(zip(node.items, item_types, strict=True))]
        return ListPlan(list if kind is list else tuple, tuple(items))

    def is_item(self, node: Scalar, wanted: Any) -> bool:
        """Whether a single value would be right as a list of one."""
        attempt = _Reader(self.imports_failed)
        attempt.read(ListNode(node.mark, (node,)), wanted, "")
        return is_list(wanted) and not node.is_null and not attempt.problems

    def mapping(self, node: Node, wanted: Any, path: str) -> Plan:
        if not isinstance(node, MapNode):
            return self.expected(node, type_text(wanted), path)
        key_type, value_type = typing.get_args(wanted)
        entries: dict[Any, Plan] = {}
        for text, child in node.entries.items():
            if isinstance(child, Scalar) and child.is_null and is_part(value_type):
                continue  # null takes an entry of the base out
            key = text if key_type is str else parse_scalar(Scalar(node.key_marks[text], text), key_type)
            if key is REQUIRED:
                self.fail(node.key_marks[text], join(path, text), f"the key must be {key_type.__name__}, got '{text}'")
            else:
                entries[key] = self.read(child, value_type, join(path, text))
        return DictPlan(entries)

    def component(self, node: Node, role: type, path: str, *, is_open: bool) -> Plan:
        registry = registry_of(role)
        assert registry is not None
        what, choices = with_article(role.__name__), ", ".join(registry.names()) or "none"
        if not isinstance(node, MapNode):
            return self.fail(node.mark, path, not_a_component(node, registry))
        name = node.entries.get("name")
        if not isinstance(name, Scalar) or name.is_null:
            return self.fail(node.mark, path, f"{what} needs a 'name'; choices: {choices}")
        target: type | None = registry.components.get(name.text)
        if target is None and self.imports_failed:
            return _NOTHING  # the components of a file that failed are missing everywhere: only the failure is news
        if target is None:
            return self.fail(name.mark, join(path, "name"), registry.unknown(name.text))
        wiring = wiring_of(target, role)
        options = options_of(target, role)
        return self.call(node.without("name"), target, options, path, wiring, named=True, is_open=is_open)

    def record(self, node: Node, wanted: type, path: str) -> Plan:
        if not isinstance(node, MapNode):
            return self.expected(node, f"a mapping with {', '.join(options_of(wanted))}", path)
        return self.call(node, wanted, options_of(wanted), path, (), named=False, is_open=False)

    def call(
        self,
        node: MapNode,
        target: type,
        options: Mapping[str, Option],
        path: str,
        wiring: Sequence[str],
        *,
        named: bool,
        is_open: bool,
    ) -> Plan:
        owner = target.__name__ if named else f"'{path}'" if path else "the config"
        for key in (key for key in node.entries if key not in options):
            self.fail(node.key_marks[key], join(path, key), f"{owner} {no_option(key, options, wiring)}")
        plans = {}
        for option in options.values():
            if option.name in node.entries:
                plans[option.name] = self.read(node.entries[option.name], option.type, join(path, option.name))
            elif option.default is REQUIRED:
                doc = f": {option.doc}" if option.doc else ""
                self.fail(node.mark, path, f"{owner} needs '{option.name}' ({type_text(option.type)}){doc}")
            else:
                plans[option.name] = default_plan(target, option)
        marks = {key: mark for key, mark in node.key_marks.items() if key in options}
        return Call(target, plans, named, is_open, node.mark, path, marks)


def default_plan(target: type, option: Option) -> Plan:
    """A default is read like a value that was written: a float option holds a float, a dataclass becomes a call.

    Raises:
        RegistrationError: the default is not of the option's type.
    """
    reader = _Reader()
    plan = reader.read(node_from(option.default, Mark("default", 0)), option.type, option.name)
    if reader.problems:
        raise RegistrationError(
            f"{location(target)}: {target.__name__}: the default of '{option.name}', {option.default!r}, "
            f"is not {type_text(option.type)}"
        )
    return plan


def _rank(arm: Any) -> int:
    """Narrow types first: `5` is an int for `str | int`, and a float only if it is no int."""
    order = [types.NoneType, Literal, bool, int, float]
    kind = typing.get_origin(arm) if typing.get_origin(arm) is Literal else arm
    return order.index(kind) if kind in order else len(order) + (arm is str)


def check_components() -> None:
    """Evaluates every option of every registered component: what reading would find one by one, a test finds at once.

    Raises:
        RegistrationError: an annotation that YAML cannot give, or a default that is not of its type.
    """
    for registry in registries():
        components: list[type] = list(registry.components.values())
        for component in components:
            role: type = registry.role
            for option in options_of(component, role).values():
                if option.default is not REQUIRED:
                    default_plan(component, option)
