"""Registries: a role is a base class, and its registry names the classes that can play it.

The signature of a component is the schema of its YAML node, so it is checked when the class is registered: wiring left
of `*`, annotated options right of it, and defaults that YAML can write.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
from inspect import Parameter
from typing import Any, Generic, Protocol, TypeVar

from frcnn.config.problems import RegistrationError, nearest
from frcnn.errors import UserError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
C = TypeVar("C", bound=type)

_REGISTRIES: dict[type, Registry[Any]] = {}


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
        if role in _REGISTRIES:
            raise RegistrationError(f"{location(role)}: {role.__name__} has a registry already")
        self.role = role
        self.wiring = wiring
        self.components: dict[str, type[T]] = {}
        _REGISTRIES[role] = self

    def register(self, component: C) -> C:
        """Adds a class under its own name; used as a decorator.

        Raises:
            RegistrationError: the class's signature cannot serve as a schema, or another file has taken the name.
        """
        if self.role not in getattr(component, "__mro__", ()):
            raise RegistrationError(f"{location(component)}: {component!r} is not a subclass of {self.role.__name__}")
        name = component.__name__
        for complaint in signature_complaints(component, self.role, self.wiring):
            raise RegistrationError(f"{location(component)}: {name}: {complaint}")
        taken = self.components.get(name)
        if taken is not None and source_file(taken) != source_file(component):
            raise RegistrationError(
                f"{location(component)}: the {self.role.__name__} '{name}' exists already in {location(taken)}; "
                "give this one another name"
            )
        self.components[name] = component
        return component

    @property
    def variable(self) -> str:
        """What the registry is called in the module of its role, such as MATCHERS."""
        module = sys.modules.get(self.role.__module__)  # a project's file that failed has none
        return next((name for name, value in vars(module or self).items() if value is self), self.role.__name__)

    def names(self) -> list[str]:
        """The names of the components, sorted."""
        return sorted(self.components)

    def get(self, name: str) -> type[T]:
        """The component of that name.

        Raises:
            UserError: there is none; the message has the nearest name and all choices.
        """
        if name not in self.components:
            raise UserError(self.unknown(name))
        return self.components[name]

    def unknown(self, name: str) -> str:
        """What to tell someone who asked for a component that does not exist."""
        guess = nearest(name, self.components)
        return (
            f"no {self.role.__name__} is called '{name}'\n"
            + (f"did you mean '{guess}'? " if guess else "")
            + f"choices: {', '.join(self.names()) or 'none'}; "
            + "a component of a project also needs its file under 'imports:'"
        )


def registry_of(role: type) -> Registry[Any] | None:
    """The registry of a role, or None when the class is not a role."""
    return _REGISTRIES.get(role)


def registries() -> list[Registry[Any]]:
    """Every registry, in the order of creation."""
    return list(_REGISTRIES.values())


def init_parameters(component: type, role: type) -> list[Parameter]:
    """What the constructor takes, without `self`.

    A class without a constructor has its parent's. The catch-all constructors above the role (`object`, `nn.Module`)
    take nothing.
    """
    owner = next(base for base in component.__mro__ if "__init__" in vars(base))
    found = list(inspect.signature(owner.__init__).parameters.values())[1:]  # type: ignore[misc]
    above_role = owner is not role and owner in role.__mro__
    return [] if above_role and any(_is_variadic(parameter) for parameter in found) else found


def signature_complaints(component: type, role: type, wiring: tuple[str, ...]) -> list[str]:
    """Why the signature of a class cannot serve as a schema; empty when it can."""
    complaints = []
    parameters = init_parameters(component, role)
    for parameter in parameters:
        if _is_variadic(parameter):
            complaints.append(f"*args and **kwargs hide the options, write them out ({parameter})")
    positional = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
    if positional != wiring:
        complaints.append(
            f"left of '*' must stand the wiring of a {role.__name__}, ({', '.join(wiring)}), "
            f"but there is ({', '.join(positional)}); options stand right of '*'"
        )
    for option in (p for p in parameters if p.kind is p.KEYWORD_ONLY):
        if option.name == "name":
            complaints.append("an option cannot be called 'name': in YAML that is the name of the component")
        if option.annotation is Parameter.empty:
            complaints.append(f"option '{option.name}' has no annotation: it says how to read the YAML value")
        if option.default is not Parameter.empty and not is_writable(option.default):
            complaints.append(f"the default of '{option.name}' cannot be written in YAML: {option.default!r}")
    return complaints


def is_writable(value: object) -> bool:
    """Whether a value can be written in YAML and read back."""
    if value is None or isinstance(value, bool | int | float | str) or hasattr(type(value), "from_text"):
        return True
    if isinstance(value, list | tuple):
        return all(is_writable(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and is_writable(item) for key, item in value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(is_writable(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init)
    return False


def source_file(thing: Any) -> str | None:
    """The file that defines a class or a function, or None when there is none (an interactive session)."""
    try:
        return inspect.getsourcefile(thing)
    except TypeError:
        return None


def location(thing: Any) -> str:
    """`file:line` of a class or a function, relative to the current directory where that is shorter."""
    file = source_file(thing)
    try:
        line = inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return str(file or getattr(thing, "__module__", thing))
    return f"{shown_path(str(file))}:{line}"


def shown_path(path: str) -> str:
    """A path as a person likes to read it: relative when it lies under the current directory."""
    inside = os.path.abspath(path).startswith(os.path.join(os.getcwd(), ""))
    return os.path.relpath(path) if inside else path


def _is_variadic(parameter: Parameter) -> bool:
    return parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
