"""What the adapters of other libraries' networks share: modules frozen by name, and error messages with choices."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from frcnn.modeling.layers import freeze


def freeze_named(network: nn.Module, names: Sequence[str], freeze: Callable[[nn.Module], nn.Module] = freeze) -> None:
    """Stops modules of a network from learning.

    Args:
        network: of another library.
        names: dotted names of its modules.
        freeze: stops one module and returns what takes its place.

    Raises:
        ValueError: a name that it does not have; says which it has.
    """
    known = [name for name, _ in network.named_modules() if name]
    for name in names:
        if name not in known:
            raise ValueError(f"frozen: there is no module {name!r}; {nearest(name, known)}")
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, freeze(network.get_submodule(name)))


def nearest(name: str, choices: Iterable[str], most: int = 8) -> str:
    """The choices that look most like a wrong name, or else the first ones, for a message."""
    choices = list(choices)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(choices[:most])}{', ...' if len(choices) > most else ''}"
