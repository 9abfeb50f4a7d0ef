"""Durations in iterations or epochs: `90000it`, `12ep`."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Duration:
    """A length of training.

    Args:
        amount: how many units; epochs may be fractions.
        unit: "it" (iterations, that is optimizer steps) or "ep" (epochs, passes over the training images).
    """

    amount: float
    unit: str

    @classmethod
    def from_text(cls, text: str) -> Duration:
        """Reads `90000it`, `12ep` or `0.5ep`.

        Raises:
            ValueError: the text is neither.
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(it|ep)\s*", text)
        if not match:
            raise ValueError("durations are written as 12ep (epochs) or 90000it (iterations)")
        amount, unit = float(match[1]), match[2]
        if unit == "it" and amount != int(amount):
            raise ValueError("iterations are whole numbers")
        return cls(amount, unit)

    def __str__(self) -> str:
        return f"{self.amount:g}{self.unit}" if self.amount != int(self.amount) else f"{int(self.amount)}{self.unit}"

    def iterations(self, epoch_length: float) -> int:
        """The same length in iterations, at least 1 unless it is zero.

        Args:
            epoch_length: iterations an epoch, images / batch size, which need not be whole.
        """
        if self.unit == "it":
            return int(self.amount)
        return max(1, round(self.amount * epoch_length)) if self.amount else 0


def require_some(name: str, duration: Duration | None) -> None:
    """Refuses the length zero for an option that needs one.

    Raises:
        ValueError: names the option.
    """
    if duration is not None and duration.amount == 0:
        raise ValueError(f"{name} must be longer than 0, got {duration}")
