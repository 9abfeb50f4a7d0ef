"""What components there are: as a list for the terminal, a page for one of them, and Markdown for all."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from frcnn.config.describe import default_text, first_line, wrapped
from frcnn.config.option_types import option_types
from frcnn.config.problems import nearest, with_article
from frcnn.config.registry import Registry, location, registries
from frcnn.config.signature import REQUIRED, Option, options_of, role_in, type_text
from frcnn.errors import UserError


def find_registry(name: str) -> Registry[Any]:
    """The registry of that name: MATCHERS, Matcher and matchers are the same.

    Raises:
        UserError: there is none; names the nearest one and all of them.
    """
    for registry in registries():
        if name.lower() in (registry.variable.lower(), registry.role.__name__.lower()):
            return registry
    if any(name in registry.components for registry in registries()):
        raise UserError(f"'{name}' is a component, not a registry: `frcnn explain {name}` tells about it")
    names = [registry.variable for registry in registries()]
    guess = nearest(name.upper(), names)
    hint = f"did you mean '{guess}'? " if guess else ""
    raise UserError(f"there is no registry '{name}'; {hint}choices: {', '.join(names)}")


def list_registry(registry: Registry[Any]) -> str:
    """The components of one registry, one sentence each."""
    contract = first_line(registry.role)
    lines = [f"{registry.variable}: {contract}"]
    if "|" in contract:
        lines.append("(left of |: what the parent passes when it builds the part; right of it: the call)")
    for name, component in sorted(registry.components.items()):
        lines += wrapped(f"{name}: {first_line(component)}", "    ")
    return "\n".join(lines)


def list_names() -> str:
    """Every registry with the names of its components."""
    lines = []
    for registry in registries():
        lines.append(registry.variable)
        lines += wrapped(", ".join(registry.names()) or "none", "    ")
    return "\n".join(lines)


def explain_component(name: str) -> str:
    """All there is to know of a component, or of a type that options take: what it is, where, how it is written, its options.

    Args:
        name: of a component or a type; capitals do not matter.

    Raises:
        UserError: there is nothing of that name; names the nearest one.
    """
    types = option_types()
    pages = [
        *(_page(c, registry) for registry in registries() for c in _called(name, list(registry.components.values()))),
        *(_type_page(found, types[found]) for found in _called(name, list(types))),
    ]
    if not pages:
        for registry in registries():
            if name.lower() in (registry.variable.lower(), registry.role.__name__.lower()):
                raise UserError(
                    f"'{name}' is a role, not a component: `frcnn list {registry.variable}` lists its components"
                )
        names = [known for registry in registries() for known in registry.components]
        names += [known.__name__ for known in types]
        guess = nearest(name, names)
        hint = f"did you mean '{guess}'? " if guess else ""
        raise UserError(
            f"no component is called '{name}'; {hint}`frcnn list` names them all; one of a project also needs --imports FILE"
        )
    return "\n\n".join("\n".join(page) for page in pages)


def markdown() -> str:
    """The reference page of all components."""
    blocks = [
        "# The components",
        "Written by `frcnn list --markdown` from the signatures and docstrings; a test says when it is stale. Left of `|` in a "
        "contract is what the parent passes, right of it the call. Every option below can be set in YAML.",
        "\n".join(
            f"- [{registry.variable}](#{registry.variable.lower()}): {', '.join(f'`{n}`' for n in registry.names())}"
            for registry in registries()
        )
        + f"\n- [types of options](#types-of-options): {', '.join(f'`{found.__name__}`' for found in option_types())}",
    ]
    for registry in registries():
        blocks.append(f"## {registry.variable}")
        blocks.append(f"`{registry.role.__name__}`: {first_line(registry.role)}")
        role: type = registry.role
        components: dict[str, type] = registry.components
        for name, component in sorted(components.items()):
            blocks += _section(name, component, list(options_of(component, role).values()))
    blocks.append("## Types of options")
    blocks.append("What some options take: in YAML a mapping of these keys, without a `name`.")
    for found, places in option_types().items():
        blocks += _section(found.__name__, found, list(options_of(found).values()))
        blocks.append(f"Taken by {', '.join(f'`{place}`' for place in places)}.")
    return "\n\n".join(blocks) + "\n"


def _page(component: type, registry: Registry[Any]) -> Iterator[str]:
    role: type = registry.role
    yield f"{component.__name__}: {with_article(role.__name__)} of {registry.variable} ({location(component)})"
    yield ""
    yield _prose(component)
    yield ""
    options = list(options_of(component, role).values())
    yield f"in YAML:  {{{', '.join([f'name: {component.__name__}', *_required(options)])}}}"
    yield from _option_lines(options)


def _type_page(found: type, places: Sequence[str]) -> Iterator[str]:
    options = list(options_of(found).values())
    yield f"{found.__name__}: a type of options ({location(found)})"
    yield ""
    yield _prose(found)
    yield ""
    yield from wrapped(f"taken by: {', '.join(places)}", "")
    words = _required(options) or [f"{option.name}: {default_text(option.default)}" for option in options[:1]]
    yield f"in YAML, without a name:  {{{', '.join(words)}}}"
    yield from _option_lines(options)


def _option_lines(options: Sequence[Option]) -> Iterator[str]:
    for option in options:
        default = "required" if option.default is REQUIRED else f"default {default_text(option.default)}"
        yield f"  {option.name}: {type_text(option.type)}, {default}"
        yield from wrapped(option.doc, "      ")
        inner = role_in(option.type)
        if inner is not None:
            known = next(r for r in registries() if r.role is inner)
            yield from wrapped(f"one of: {', '.join(known.names())}", "      ")


def _required(options: Sequence[Option]) -> list[str]:
    return [f"{option.name}: ..." for option in options if option.default is REQUIRED]


def _called(name: str, among: Sequence[type]) -> list[type]:
    """The classes of that name as it is written; if there is none, those that differ in capitals alone."""
    return [one for one in among if one.__name__ == name] or [
        one for one in among if one.__name__.lower() == name.lower()
    ]


def _prose(component: type) -> str:
    """The docstring without its sections of arguments."""
    text = inspect.cleandoc(vars(component).get("__doc__") or "")
    return "\n\n".join(block for block in text.split("\n\n") if not block.startswith(("Args:", "Raises:", "Returns:")))


def _section(name: str, component: type, options: Sequence[Option]) -> Iterator[str]:
    yield f"### {name}"
    yield _prose(component)
    if not options:
        return
    rows = ["| option | type | default | |", "|---|---|---|---|"]
    for option in options:
        default = "required" if option.default is REQUIRED else f"`{default_text(option.default)}`"
        cells = (f"`{option.name}`", type_text(option.type), default, option.doc)
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    yield "\n".join(rows)
