"""The dataclasses that options of components take: nodes of YAML without a `name`."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from frcnn.config.registry import registries
from frcnn.config.signature import is_record, is_value_class, options_of


def option_types() -> dict[type, list[str]]:
    """Each type by its name, and the options that take it, such as `ResNet.deformable`."""
    taken_by: dict[type, list[str]] = {}
    for registry in registries():
        role: type = registry.role
        components: list[type] = list(registry.components.values())
        for component in components:
            _collect(component, role, taken_by)
    return {found: sorted(taken_by[found]) for found in sorted(taken_by, key=lambda found: found.__name__)}


def _collect(owner: type, role: type | None, taken_by: dict[type, list[str]]) -> None:
    for option in options_of(owner, role).values():
        for found in _records(option.type):
            is_new = found not in taken_by
            places = taken_by.setdefault(found, [])
            if f"{owner.__name__}.{option.name}" not in places:
                places.append(f"{owner.__name__}.{option.name}")
            if is_new:
                _collect(found, None, taken_by)


def _records(wanted: Any) -> Iterator[type]:
    if is_record(wanted) and not is_value_class(wanted):
        yield wanted
    for argument in typing.get_args(wanted):
        yield from _records(argument)
