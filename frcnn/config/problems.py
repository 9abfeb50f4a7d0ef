"""Mistakes in a configuration: where they are, what they are, and the errors that carry them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from frcnn.errors import UserError


@dataclass(frozen=True)
class Mark:
    """Where a value was written.

    Args:
        source: the file as the user named it, or the text of the argument on the command line.
        line: from 1; None on the command line.
    """

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return f"command line '{self.source}'" if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Args:
        mark: where it was written.
        path: dotted path of the key, empty for the whole file.
        message: what came and what was expected; further lines are indented.
    """

    mark: Mark
    path: str
    message: str

    def __str__(self) -> str:
        typed_here = self.mark.line is None and self.mark.source.replace(" ", "=").startswith(f"{self.path}=")
        where = "" if not self.path or typed_here else f"{self.path}: "
        return f"{self.mark}: {where}{self.message}".replace("\n", "\n    ")

    @property
    def order(self) -> tuple[bool, str, int]:
        """Files by name and line, then the command line."""
        return self.mark.line is None, self.mark.source, self.mark.line or 0


class ConfigError(UserError):
    """Every mistake found in a configuration, sorted by file and line, one or two lines each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(dict.fromkeys(problems), key=lambda problem: problem.order)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[Problem]]]:
        return type(self), (self.problems,)


class RegistrationError(UserError):
    """A class that cannot be a component: its signature cannot serve as the schema of a YAML node."""


def join(path: str, key: str | int) -> str:
    """The dotted path of a key under `path`."""
    return f"{path}.{key}" if path else str(key)


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was most likely meant to be, or None."""
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def with_article(noun: str) -> str:
    """`a Matcher`, `an AnchorGenerator`, `an RPNHead`: an acronym is spelled out when it is read."""
    spelled_out = len(noun) > 1 and noun[:2].isupper()
    return f"{'an' if noun[0] in ('AEFHILMNORSX' if spelled_out else 'AEIOUaeiou') else 'a'} {noun}"
