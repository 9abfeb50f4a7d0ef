"""Mistakes that our components find in a translated config, told by detectron2's keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from frcnn.config.problems import Problem
from frcnn.detectron2.settings import Settings


def by_their_keys(problems: Iterable[Problem], plain: Any, settings: Settings) -> list[str]:
    """Each mistake with the key that somebody wrote, its file and line.

    The key is found by its value: a wrong value seldom stands at two keys. Where it does, or where the value was
    computed, the mistake keeps our key and names no line.

    Args:
        problems: mistakes by our keys.
        plain: the translated config.
        settings: what was translated.
    """
    return list(dict.fromkeys(_told(problem, plain, settings) for problem in problems))


def _told(problem: Problem, plain: Any, settings: Settings) -> str:
    keys = _origins(problem.path.split("."), plain, settings)
    if len(keys) == 1:
        value, mark = settings.given[keys[0]]
        message = f"{value!r} makes no config of ours: {problem.path}: {problem.message}"
        return str(Problem(mark, keys[0], message))
    perhaps = f" (perhaps from {' or '.join(keys)})" if 1 < len(keys) <= 3 else ""
    return f"{settings.source}: translated to {problem.path}{perhaps}: {problem.message}".replace("\n", "\n    ")


def _origins(words: list[str], plain: Any, settings: Settings) -> list[str]:
    """The written keys whose value stands at a path of the translated config, or at the list around it."""
    values = []
    for word in words:
        try:
            plain = plain[int(word) if isinstance(plain, list | tuple) else word]
        except (KeyError, IndexError, ValueError, TypeError):
            break
        values.append(plain)
    for value in reversed(values):
        if isinstance(value, dict):
            break
        keys = [key for key, (given, _) in settings.given.items() if _same(given, value)]
        if keys:
            return keys
    return []


def _same(given: Any, value: Any) -> bool:
    return (type(given) is type(value) and given == value) or (isinstance(given, int) and value == f"{given}it")
