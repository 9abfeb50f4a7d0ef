"""What components there are: as a list for the terminal, a page for one of them, and Markdown for all."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from frcnn.config.describe import default_text, first_line, wrapped
from frcnn.config.problems import nearest, with_article
from frcnn.config.registry import Registry, location, registries
from frcnn.config.signature import REQUIRED, options_of, role_in, type_text
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
    lines = [f"{registry.variable}: {first_line(registry.role)}"]
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
    """All there is to know of a component: what it is, where, how it is written, its options.

    Raises:
        UserError: there is no component of that name; names the nearest one.
    """
    found = [(registry, r) for registry in registries() if (r := registry.components.get(name))]
    if not found:
        for registry in registries():
            if name.lower() in (registry.variable.lower(), registry.role.__name__.lower()):
                raise UserError(
                    f"'{name}' is a role, not a component: `frcnn list {registry.variable}` lists its components"
                )
        names = [known for registry in registries() for known in registry.components]
        guess = nearest(name, names)
        hint = f"did you mean '{guess}'? " if guess else ""
        raise UserError(
            f"no component is called '{name}'; {hint}`frcnn list` names them all; one of a project also needs --imports FILE"
        )
    return "\n\n".join("\n".join(_page(component, registry)) for registry, component in found)


def markdown() -> str:
    """The reference page of all components."""
    blocks = [
        "# The components",
        "Written by `frcnn list --markdown` from the signatures and docstrings; a test says when it is stale. Left of `|` in a "
        "contract is what the parent passes, right of it the call. Every option below can be set in YAML.",
        "\n".join(
            f"- [{registry.variable}](#{registry.variable.lower()}): {', '.join(f'`{n}`' for n in registry.names())}"
            for registry in registries()
        ),
    ]
    for registry in registries():
        blocks.append(f"## {registry.variable}")
        blocks.append(f"`{registry.role.__name__}`: {first_line(registry.role)}")
        for name, component in sorted(registry.components.items()):
            blocks += _section(name, component, registry.role)
    return "\n\n".join(blocks) + "\n"


def _page(component: type, registry: Registry[Any]) -> Iterator[str]:
    role: type = registry.role
    yield f"{component.__name__}: {with_article(role.__name__)} of {registry.variable} ({location(component)})"
    yield ""
    yield _prose(component)
    yield ""
    yield f"in YAML:  {{{', '.join(_yaml_words(component, role))}}}"
    for option in options_of(component, role).values():
        default = "required" if option.default is REQUIRED else f"default {default_text(option.default)}"
        yield f"  {option.name}: {type_text(option.type)}, {default}"
        yield from wrapped(option.doc, "      ")
        inner = role_in(option.type)
        if inner is not None:
            known = next(r for r in registries() if r.role is inner)
            yield from wrapped(f"one of: {', '.join(known.names())}", "      ")


def _yaml_words(component: type, role: type) -> Iterator[str]:
    yield f"name: {component.__name__}"
    for option in options_of(component, role).values():
        if option.default is REQUIRED:
            yield f"{option.name}: ..."


def _prose(component: type) -> str:
    """The docstring without its sections of arguments."""
    text = inspect.cleandoc(vars(component).get("__doc__") or "")
    return "\n\n".join(block for block in text.split("\n\n") if not block.startswith(("Args:", "Raises:", "Returns:")))


def _section(name: str, component: type, role: type) -> Iterator[str]:
    yield f"### {name}"
    yield _prose(component)
    options = list(options_of(component, role).values())
    if not options:
        return
    rows = ["| option | type | default | |", "|---|---|---|---|"]
    for option in options:
        default = "required" if option.default is REQUIRED else f"`{default_text(option.default)}`"
        cells = (f"`{option.name}`", type_text(option.type), default, option.doc)
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    yield "\n".join(rows)
