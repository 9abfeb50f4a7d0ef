"""A plan is a configuration that has been read: calls with every option filled in, not yet made.

The plan is what is built and what is written to the run folder, so the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from frcnn.config.problems import ConfigError, Mark, Problem, join


@dataclass(frozen=True)
class Value:
    """A single value."""

    value: Any


@dataclass(frozen=True)
class ListPlan:
    """A list or a tuple of plans."""

    kind: type
    items: tuple[Plan, ...]

    def field(self, path: str) -> Plan:
        """The plan at a dotted path."""
        return descend(self, path)


@dataclass(frozen=True)
class DictPlan:
    """A mapping of plans."""

    entries: dict[Any, Plan]

    def field(self, path: str) -> Plan:
        """The plan at a dotted path."""
        return descend(self, path)


@dataclass(frozen=True)
class Call:
    """A component or a frozen dataclass with its options.

    Args:
        target: the class.
        options: every option, defaults included.
        named: a component, written with `name`; a dataclass has none.
        is_open: the parent closes the call with the wiring.
        mark: where the node was written.
        path: its dotted path.
        marks: where the options that were given were written.
    """

    target: type
    options: dict[str, Plan]
    named: bool
    is_open: bool
    mark: Mark = field(compare=False)
    path: str = field(compare=False)
    marks: dict[str, Mark] = field(compare=False, default_factory=dict)

    def field(self, path: str) -> Plan:
        """The plan at a dotted path, such as `data.train`."""
        return descend(self, path)

    def with_value(self, name: str, value: Any) -> Call:
        """The same call with one option set to a single value (number, text, null)."""
        if name not in self.options:
            raise KeyError(f"{self.target.__name__} has no option '{name}'")
        return replace(self, options={**self.options, name: Value(value)})

    def close(self, *wiring: Any) -> Any:
        """Builds the options and makes the call.

        Raises:
            ConfigError: the constructor refused a value; every refusal among the options is reported.
        """
        options = _build_all(self.options)
        try:
            return self.target(*wiring, **options)
        except ValueError as error:
            # The message says which option it is about, so the line of that option can be named.
            about = str(error).partition(" ")[0].strip("'`:,")
            mark, path = (self.marks[about], join(self.path, about)) if about in self.marks else (self.mark, self.path)
            raise ConfigError([Problem(mark, path, f"{self.target.__name__}: {error}")]) from error


Plan = Value | ListPlan | DictPlan | Call


@dataclass(frozen=True)
class OpenCall:
    """A factory: called with the wiring, it makes the component.

    It is `functools.partial(component, **options)`, except that each call builds its own options: two parts closed by
    the same factory must not share a loss or a matcher. It can be pickled.
    """

    call: Call

    def __call__(self, *wiring: Any) -> Any:
        return self.call.close(*wiring)

    def __repr__(self) -> str:
        return f"Factory({self.call.target.__name__})"


def build(plan: Plan) -> Any:
    """Plain objects of a plan: components, factories, dataclasses, lists, values.

    Raises:
        ConfigError: constructors refused values, with file, line and key of each.
    """
    if isinstance(plan, Value):
        return plan.value
    if isinstance(plan, ListPlan):
        return plan.kind(_build_all(dict(enumerate(plan.items))).values())
    if isinstance(plan, DictPlan):
        return _build_all(plan.entries)
    return OpenCall(plan) if plan.is_open else plan.close()


def open_calls(plan: Plan) -> Iterator[Call]:
    """Every call in a plan that a parent is to close, outer ones first."""
    if isinstance(plan, Call) and plan.is_open:
        yield plan
    parts = {ListPlan: "items", DictPlan: "entries", Call: "options"}
    children = getattr(plan, parts[type(plan)]) if type(plan) in parts else ()
    for child in children.values() if isinstance(children, dict) else children:
        yield from open_calls(child)


def descend(plan: Plan, path: str) -> Plan:
    """The plan at a dotted path; indices for lists.

    Raises:
        KeyError: there is none.
    """
    for key in path.split("."):
        try:
            if isinstance(plan, Call):
                plan = plan.options[key]
            elif isinstance(plan, ListPlan):
                plan = plan.items[int(key)]
            elif isinstance(plan, DictPlan):
                plan = plan.entries[key]
            else:
                raise KeyError(key)
        except (KeyError, IndexError, ValueError):
            raise KeyError(f"no '{key}' on the way to '{path}'") from None
    return plan


def _build_all(plans: dict[Any, Plan]) -> dict[Any, Any]:
    built, problems = {}, []
    for key, plan in plans.items():
        try:
            built[key] = build(plan)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return built
