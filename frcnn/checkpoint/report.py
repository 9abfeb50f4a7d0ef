"""What loading weights did, as one table that fits a screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]
_WIDTH = 120
_MOST_LINES = 6


@dataclass(frozen=True)
class Reinitialised:
    """A tensor of the checkpoint that the model did not take: it has another shape, or belongs to other classes."""

    name: str
    checkpoint_shape: Shape
    model_shape: Shape

    def __str__(self) -> str:
        if self.checkpoint_shape == self.model_shape:
            return f"{self.name} {list(self.model_shape)} (other classes)"
        return f"{self.name} {list(self.checkpoint_shape)} -> {list(self.model_shape)}"


@dataclass(frozen=True)
class LoadReport:
    """The fate of every tensor of a checkpoint and of a model.

    Args:
        source: where the weights came from, as the person wrote it.
        loaded: names that the model took.
        reinitialised: names both have, with different shapes or for other classes; the model keeps its initial values.
        missing: names of the model that the checkpoint lacks; the model keeps its initial values.
        unexpected: names of the checkpoint that the model lacks; not used.
    """

    source: str
    loaded: Sequence[str]
    reinitialised: Sequence[Reinitialised]
    missing: Sequence[str]
    unexpected: Sequence[str]

    @property
    def is_exact(self) -> bool:
        """Whether every tensor of the model came from the checkpoint and none was left over."""
        return not (self.reinitialised or self.missing or self.unexpected)

    def summary(self) -> str:
        """One line: how many of the model's tensors were loaded."""
        total = len(self.loaded) + len(self.reinitialised) + len(self.missing)
        return f"{len(self.loaded)} of the model's {total} tensors loaded from {self.source}"

    def table(self, *, refused: bool = False) -> str:
        """One row per fate, its tensors grouped by the modules that share it.

        Args:
            refused: nothing was loaded: the rows say what does not fit, and not what became of it.

        Returns:
            Text of at most about 30 lines.
        """
        wrong_shape = [entry.name for entry in self.reinitialised]
        everything = [*self.loaded, *wrong_shape, *self.missing, *self.unexpected]
        fates = (
            ("fits", "other shape", "only in the model", "only in the file")
            if refused
            else ("loaded", self._why_reinitialised(), "missing: kept as initialised", "unexpected: not used")
        )
        rows = (
            (len(self.loaded), _packed(group_names(self.loaded, everything))),
            (len(wrong_shape), _shortened([str(entry) for entry in self.reinitialised])),
            (len(self.missing), _packed(group_names(self.missing, everything))),
            (len(self.unexpected), _packed(group_names(self.unexpected, everything))),
        )
        lines = ["nothing was loaded"] if refused else [self.summary()]
        for fate, (count, where) in zip(fates, rows, strict=True):
            first, *rest = where or ["-"]
            lines.append(f"  {fate:<28} {count:>5}  {first}")
            lines.extend(" " * 38 + line for line in rest)
        return "\n".join(lines)

    def _why_reinitialised(self) -> str:
        other_shape = all(entry.checkpoint_shape != entry.model_shape for entry in self.reinitialised)
        return "re-initialised: other shape" if other_shape else "re-initialised: class heads"


def group_names(names: Iterable[str], everything: Iterable[str]) -> list[str]:
    """The shortest list of modules that says which of all names are meant.

    Args:
        names: the names to tell.
        everything: all names, the ones to tell among them; a module stands for its tensors if all of them are meant.

    Returns:
        Entries as `backbone.* (120)` for a module and `fc.weight` for a single tensor, in sorted order.
    """
    chosen = set(names)
    return [label for label, _ in _groups(sorted(chosen), sorted(chosen | set(everything)), prefix="")]


def _groups(chosen: Sequence[str], everything: Sequence[str], prefix: str) -> Iterator[tuple[str, int]]:
    if not chosen:
        return
    if len(chosen) == len(everything) and len(chosen) > 1 and prefix:
        yield f"{prefix}* ({len(chosen)})", len(chosen)
        return
    for child, names in _by_child(everything, prefix).items():
        inside = [name for name in chosen if name == child or (child.endswith(".") and name.startswith(child))]
        if names == [child]:
            yield from ((name, 1) for name in inside)
        else:
            yield from _groups(inside, names, child)


def _by_child(names: Sequence[str], prefix: str) -> dict[str, list[str]]:
    """Names sorted into the next level of modules: `backbone.stem.` for a module, the name itself for a tensor."""
    children: dict[str, list[str]] = {}
    for name in names:
        head, dot, _ = name[len(prefix) :].partition(".")
        children.setdefault(prefix + head + dot, []).append(name)
    return children


def _packed(groups: Sequence[str]) -> list[str]:
    """Groups joined into lines of the screen's width."""
    lines: list[str] = []
    for group in groups:
        if lines and len(lines[-1]) + len(group) + 2 <= _WIDTH - 38:
            lines[-1] += f", {group}"
        else:
            lines.append(group)
    return _shortened(lines)


def _shortened(lines: Sequence[str]) -> list[str]:
    if len(lines) <= _MOST_LINES:
        return list(lines)
    return [*lines[: _MOST_LINES - 1], f"... and {len(lines) - _MOST_LINES + 1} more lines of these"]
