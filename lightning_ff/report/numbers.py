"""Numbers over several runs: mean and deviation of values, and their formatting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite, isnan, nan

import numpy as np

DASH = "\u2013"


@dataclass(frozen=True)
class Stat:
    """Mean and standard deviation (n - 1 in the denominator) of one value over the runs of a configuration."""

    mean: float | None  # None if no run has the value, NaN if it is undefined in all runs that have it
    deviation: float | None = None  # None for fewer than two values
    count: int = 1  # of values that are not NaN
    runs: int = 1

    @property
    def missing(self) -> bool:
        """Whether some of the runs lack the value."""
        return self.count < self.runs

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Stat:
        """Of one value per run; None is not measured, NaN is measured but undefined.

        Example::

            >>> Stat.of([1.0, 3.0, None])
            Stat(mean=2.0, deviation=1.4142135623730951, count=2, runs=3)
        """
        given = list(values)
        measured = [float(value) for value in given if value is not None]
        finite = np.array([value for value in measured if not isnan(value)], dtype=float)
        mean = float(finite.mean()) if len(finite) else nan if measured else None
        deviation = float(finite.std(ddof=1)) if len(finite) > 1 else None
        return cls(mean, deviation, len(finite), len(given))

    def times(self, factor: float) -> Stat:
        """Multiply by a factor."""
        mean = None if self.mean is None else factor * self.mean
        return Stat(mean, None if self.deviation is None else factor * self.deviation, self.count, self.runs)


def fixed(value: float | None, decimals: int) -> str:
    """A number with fixed decimals and a real minus sign; a dash if not measured.

    Example::

        >>> fixed(-0.5, 2), fixed(None, 2), fixed(float("nan"), 2)
        ('\u22120.50', '\u2013', 'NaN')
    """
    if value is None:
        return DASH
    if not isfinite(value):
        return "NaN" if isnan(value) else "∞" if value > 0 else "\u2212∞"
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "\u2212")


def duration(seconds: float | None) -> str:
    r"""A readable duration.

    Example::

        >>> duration(42.3), duration(754), duration(7384)
        ('42\xa0s', '12\xa0min\xa034\xa0s', '2\xa0h\xa03\xa0min')
    """
    if seconds is None:
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    hours, rest_minutes = divmod(minutes, 60)
    if not minutes:
        return f"{seconds:.1f}\xa0s" if seconds < 10 else f"{rest}\xa0s"
    return f"{hours}\xa0h\xa0{rest_minutes}\xa0min" if hours else f"{minutes}\xa0min\xa0{rest}\xa0s"


def span(values: Iterable[float]) -> str:
    """Range of integers, from the lowest to the highest.

    Example::

        >>> span([3, 5, 4]), span([3, 3])
        ('3\u2009\u2013\u20095', '3')
    """
    rounded = {round(value) for value in values}
    return f"\u2009{DASH}\u2009".join(map(str, sorted({min(rounded), max(rounded)}))) if rounded else DASH
