"""What the options of a component are: name, type, default, and the line of its docstring."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Literal, Union

from frcnn.config.problems import RegistrationError
from frcnn.config.registry import Factory, init_parameters, location, registry_of

REQUIRED: Any = Parameter.empty
SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class Option:
    """One option of a component, or one field of a dataclass.

    Args:
        name: its key in YAML.
        type: the annotation, evaluated.
        default: REQUIRED if there is none.
        doc: its line under `Args:` in the docstring of the class.
    """

    name: str
    type: Any
    default: Any
    doc: str


@functools.cache
def options_of(component: type, role: type | None = None) -> dict[str, Option]:
    """The options of a component of a role, or without a role the fields of a dataclass.

    Raises:
        RegistrationError: an annotation cannot be evaluated, or is nothing that YAML can give.
    """
    docs = argument_docs(component)
    found = _fields(component) if role is None else _keywords(component, role)
    options = {}
    for name, (annotation, default) in found.items():
        if complaint := type_complaint(annotation):
            raise RegistrationError(f"{location(component)}: {component.__name__}: option '{name}': {complaint}")
        options[name] = Option(name, annotation, default, docs.get(name, ""))
    return options


def wiring_of(component: type, role: type) -> tuple[str, ...]:
    """Names of the parameters that the parent passes."""
    return tuple(p.name for p in init_parameters(component, role) if p.kind is not p.KEYWORD_ONLY)


def _keywords(component: type, role: type) -> dict[str, tuple[Any, Any]]:
    """Options of a constructor. Each is evaluated alone: what annotates the wiring may exist for type checkers only."""
    owner = next(base for base in component.__mro__ if "__init__" in vars(base))
    # `object.__init__`, of a class without options, is not written in Python and has no globals.
    namespace = getattr(inspect.unwrap(owner.__init__), "__globals__", {})  # type: ignore[misc]
    found = {}
    for parameter in init_parameters(component, role):
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        annotation = parameter.annotation
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, namespace)
            except Exception as error:
                raise RegistrationError(
                    f"{location(component)}: {component.__name__}: the annotation of '{parameter.name}', {annotation}, "
                    f"means nothing in its file: {error}"
                ) from error
        found[parameter.name] = (annotation, parameter.default)
    return found


def _fields(record: type) -> dict[str, tuple[Any, Any]]:
    try:
        hints = typing.get_type_hints(record)
    except NameError as error:
        raise RegistrationError(f"{location(record)}: {record.__name__}: {error}") from error
    found = {}
    for field in dataclasses.fields(record):
        default: Any = REQUIRED
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if field.init:
            found[field.name] = (hints[field.name], default)
    return found


def argument_docs(component: type) -> dict[str, str]:
    """name -> text of the `Args:` section; what a class does not say of an option, its parent says."""
    docs: dict[str, str] = {}
    for base in component.__mro__:
        section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", inspect.cleandoc(vars(base).get("__doc__") or ""), re.M)
        for name, text in _entries(section[1] if section else ""):
            docs.setdefault(name, text)
    return docs


def _entries(section: str) -> list[tuple[str, str]]:
    """`name: text` entries; a line that is indented deeper goes on with the entry above."""
    text = inspect.cleandoc(section)
    return [
        (found[1], " ".join(found[2].split())) for found in re.finditer(r"^(\w+):(.*(?:\n(?:[ \t].*|$))*)", text, re.M)
    ]


def is_record(wanted: Any) -> bool:
    """Whether a type is a frozen dataclass: a node without `name`."""
    return isinstance(wanted, type) and dataclasses.is_dataclass(wanted) and wanted.__dataclass_params__.frozen  # type: ignore[attr-defined]


def is_value_class(wanted: Any) -> bool:
    """Whether a type is a class whose values are written as one word, such as `12ep`."""
    return isinstance(wanted, type) and hasattr(wanted, "from_text")


def is_union(wanted: Any) -> bool:
    """Whether a type is `X | Y`."""
    return typing.get_origin(wanted) in (Union, types.UnionType)


def is_list(wanted: Any) -> bool:
    """Whether a type is list[...], tuple[...] or Sequence[...]."""
    return typing.get_origin(wanted) in (list, tuple, Sequence)


def is_dict(wanted: Any) -> bool:
    """Whether a type is dict[...] or Mapping[...]."""
    return typing.get_origin(wanted) in (dict, Mapping)


def role_in(wanted: Any) -> type | None:
    """The role of `Role` or `Factory[Role]`; None for every other type."""
    inner = typing.get_args(wanted)[0] if typing.get_origin(wanted) is Factory else wanted
    return inner if isinstance(inner, type) and registry_of(inner) is not None else None


def is_part(wanted: Any) -> bool:
    """Whether a type is a component or a dataclass: in a mapping of these, null takes an entry out."""
    return role_in(wanted) is not None or (is_record(wanted) and not is_value_class(wanted))


def type_complaint(wanted: Any) -> str | None:
    """Why YAML cannot give a value of this type; None if it can."""
    arguments = typing.get_args(wanted)
    role = role_in(wanted)
    if role is not None:
        wiring = registry_of(role).wiring  # type: ignore[union-attr]
        if wiring and typing.get_origin(wanted) is not Factory:
            return f"{role.__name__} needs wiring ({', '.join(wiring)}): annotate it as Factory[{role.__name__}]"
        return None
    if typing.get_origin(wanted) is Factory:
        return f"Factory[{type_text(arguments[0])}]: {type_text(arguments[0])} has no registry"
    if wanted in (*SCALARS, types.NoneType, None) or is_value_class(wanted) or is_record(wanted):
        return None
    if typing.get_origin(wanted) is Literal and all(isinstance(choice, str | int) for choice in arguments):
        return None
    if is_union(wanted) or is_list(wanted):
        return next(filter(None, (type_complaint(a) for a in arguments if a is not Ellipsis)), None)
    if is_dict(wanted) and arguments[0] in (str, int):
        return type_complaint(arguments[1])
    if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
        return f"the dataclass {wanted.__name__} must be frozen"
    return f"YAML cannot give a {type_text(wanted)}"


def type_text(wanted: Any) -> str:
    """A type as a person reads it: `float | null`, `list[Hook]`."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted in (None, types.NoneType):
        return "null"
    if wanted is Ellipsis:
        return "..."
    if origin is Factory:
        return type_text(arguments[0])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if is_union(wanted):
        return " | ".join(map(type_text, arguments))
    if origin is not None and arguments:
        return f"{origin.__name__}[{', '.join(map(type_text, arguments))}]"
    return getattr(wanted, "__name__", str(wanted))
