"""How far a number over a few seeds can be trusted: spread, paired difference, Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """A metric over seeds.

    Args:
        values: seed -> value; seeds whose value is not known are left out.
    """

    values: Mapping[int, float]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        """The sample standard deviation, with n - 1 in the denominator; None of fewer than two seeds."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """What a variant has more than the first one, over the seeds that both ran with.

    d_s = variant_s - first_s of each seed s; mean = sum d_s / n; standard_error = stdev(d) / sqrt(n); the interval is
    mean +- t(0.975, n - 1) standard_error. Pairing takes out what both owe to the seed (order of the data, first weights).

    Args:
        values: seed -> difference.
    """

    values: Mapping[int, float]

    @property
    def mean(self) -> float | None:
        return Spread(self.values).mean

    @property
    def standard_error(self) -> float | None:
        std = Spread(self.values).std
        return None if std is None else std / math.sqrt(len(self.values))

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval; None of fewer than two seeds."""
        error = self.standard_error
        return None if error is None else t_quantile(0.5 + CONFIDENCE / 2, len(self.values) - 1) * error

    @property
    def verdict(self) -> str:
        """ "better", "worse", "within noise" (the interval holds 0), or "n/a" where there is no interval."""
        mean, half = self.mean, self.half_width
        if mean is None or half is None:
            return "n/a"
        if abs(mean) <= half:
            return "within noise"
        return "better" if mean > 0 else "worse"


def paired_difference(variant: Spread, first: Spread) -> Difference:
    """Seed by seed; a seed that only one of them has is left out."""
    common = [seed for seed in variant.values if seed in first.values]
    return Difference({seed: variant.values[seed] - first.values[seed] for seed in common})


def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t distribution, by bisection of its distribution function.

    Args:
        probability: in (0.5, 1).
        degrees: of freedom, a whole number of at least 1.

    Raises:
        ValueError: outside of these.
    """
    if not 0.5 < probability < 1 or degrees < 1:
        raise ValueError(f"probability must be in (0.5, 1) and degrees at least 1, got {probability} and {degrees}")
    low, high = 0.0, 1.0
    while t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def t_cdf(t: float, degrees: int) -> float:
    """P(T <= t) for t >= 0 (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    inside = (2 / math.pi) * (angle + sine * total) if odd else sine * total
    return 0.5 + inside / 2
