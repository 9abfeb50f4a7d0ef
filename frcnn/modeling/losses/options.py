"""Checks of what several losses ask for."""

from __future__ import annotations

from collections.abc import Sequence


def not_negative(loss_weight: float) -> float:
    """The weight itself.

    Raises:
        ValueError: it is negative.
    """
    if loss_weight < 0:
        raise ValueError(f"loss_weight must be at least 0, got {loss_weight}")
    return loss_weight


def one_number_a_class(name: str, numbers: Sequence[float], expected: int, what: str) -> None:
    """Checks a list with a number for each class.

    Args:
        name: of the option.
        numbers: what was given.
        expected: how many there should be.
        what: they are of, in words.

    Raises:
        ValueError: another length, or a negative number.
    """
    if len(numbers) != expected:
        raise ValueError(f"{name} must be {expected} numbers, {what}, got {len(numbers)}")
    if min(numbers) < 0:
        raise ValueError(f"{name} must be at least 0, got {min(numbers)}")
