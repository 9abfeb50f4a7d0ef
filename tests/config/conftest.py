"""A small framework of toys: roles and components as the real ones are written, without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from frcnn.config import ConfigError, Factory, Registry, load_imports, load_tree, read


@dataclass(frozen=True)
class Span:
    """A length of time, written as one word."""

    count: int

    @classmethod
    def from_text(cls, text: str) -> Span:
        if not text.endswith("it"):
            raise ValueError("write it as 500it")
        return cls(int(text.removesuffix("it")))

    def __str__(self) -> str:
        return f"{self.count}it"


class Loss:
    """Measures errors."""


class Head:
    """Scores locations."""

    def __init__(self, width: int, anchors: int) -> None:
        self.width, self.anchors = width, anchors


class Hook:
    """Something that happens."""


LOSSES = Registry(Loss)
HEADS = Registry(Head, wiring=("width", "anchors"))
HOOKS = Registry(Hook)


@LOSSES.register
class ToyL1(Loss):
    """Absolute error.

    Args:
        weight: factor of the loss, at least 0.
        powers: exponents of the terms,
            one after the other.
    """

    def __init__(self, *, weight: float = 1, powers: tuple[float, ...] = (1.0,)) -> None:
        if weight < 0:
            raise ValueError(f"weight must be at least 0, got {weight}")
        self.weight, self.powers = weight, powers


@LOSSES.register
class ToyL2(ToyL1):
    """Squared error."""


@LOSSES.register
class ToyFree(Loss):
    """Costs nothing."""


@HEADS.register
class ToyHead(Head):
    """A stack of layers.

    Args:
        depth: number of layers.
        loss: what it learns from.
        norm: the norm behind each layer.
    """

    def __init__(
        self, width: int, anchors: int, *, depth: int, loss: Loss, norm: Literal["off", "BN", "GN"] = "off"
    ) -> None:
        super().__init__(width, anchors)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.depth, self.loss, self.norm = depth, loss, norm


@HOOKS.register
class ToySave(Hook):
    """Saves.

    Args:
        every: interval.
        label: file name.
    """

    def __init__(self, *, every: Span = Span(10), label: str | None = None) -> None:
        self.every, self.label = every, label


@dataclass(frozen=True)
class Coder:
    """How boxes are written as numbers.

    Args:
        weights: of x, y, w, h.
        clamp: largest size.
    """

    weights: tuple[float, float, float, float] = (1, 1, 1, 1)
    clamp: float = 4.0

    def __post_init__(self) -> None:
        if self.clamp <= 0:
            raise ValueError(f"clamp must be positive, got {self.clamp}")


@dataclass(frozen=True)
class Toy:
    """The root.

    Args:
        head: scores locations.
        stages: further heads.
    """

    head: Factory[Head]
    stages: list[Factory[Head]] = field(default_factory=list)
    hooks: dict[str, Hook] = field(default_factory=dict)
    coder: Coder = Coder()
    extra_loss: Loss | None = None
    imports: tuple[str, ...] = ()
    rate: float = 0.1
    steps: int = 100
    mode: str = "off"
    flag: bool = False
    sizes: tuple[float, ...] | tuple[tuple[float, ...], ...] = ()
    either: int | float | str = 0
    names: dict[int, str] = field(default_factory=dict)


@pytest.fixture
def toys() -> Any:
    """The classes of this file."""
    return type("Toys", (), globals())


@pytest.fixture
def plan_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Reads a text, written to toy.yaml in the current directory, as Toy."""
    monkeypatch.chdir(tmp_path)

    def read_text(text: str, *overrides: str) -> Any:
        Path("toy.yaml").write_text(text)
        tree = load_tree("toy.yaml", overrides)
        load_imports(tree)
        return read(tree, Toy)

    return read_text


@pytest.fixture
def errors_of(plan_of: Callable[..., Any]) -> Callable[..., list[str]]:
    """The lines that a person sees after a mistake."""

    def lines(text: str, *overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            plan_of(text, *overrides)
        return str(caught.value).splitlines()

    return lines
