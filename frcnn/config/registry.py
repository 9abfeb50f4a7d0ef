"""Registries: a role is a base class, and its registry names the classes that can play it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Factory(Protocol[T_co]):
    """An open call: a component with its options chosen, waiting for its wiring."""

    def __call__(self, *wiring: Any) -> T_co: ...


class Registry(Generic[T]):
    """The components that can play one role.

    Args:
        role: the base class of the role.
        wiring: names of the positional parameters that the parent passes when it builds the part.
    """

    def __init__(self, role: type[T], wiring: tuple[str, ...] = ()) -> None:
        self.role = role
        self.wiring = wiring
        self.components: dict[str, type[T]] = {}

    def register(self, component: Callable[..., Any]) -> Any:
        self.components[component.__name__] = component  # type: ignore[assignment]
        return component
