"""Metrics of a run over its steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if not TYPE_CHECKING:
    from lightning_ff._moved import moved

    __getattr__ = moved(__name__)  # the readers were here


@dataclass(frozen=True)
class Series:
    """One metric over training: values `(n,)` in the order of logging, and the number of batches at each `(n,)`."""

    steps: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]]) -> Series:
        """A series from pairs of step and value."""
        pairs = np.array(list(points), dtype=float).reshape(-1, 2)
        return cls(pairs[:, 0].astype(np.int64), pairs[:, 1])

    @property
    def last(self) -> float:
        """The value logged last."""
        return float(self.values[-1])

    @property
    def best(self) -> float | None:
        """The highest value; None if all are NaN."""
        finite = self.values[~np.isnan(self.values)]
        return float(finite.max()) if len(finite) else None

    def after(self, earlier: Series, start: int) -> Series:
        """This series, after the part of another one before a step: the series of a resumed run."""
        keep = earlier.steps < start
        steps = np.concatenate((earlier.steps[keep], self.steps))
        return Series(steps, np.concatenate((earlier.values[keep], self.values)))


def by_key(points: Iterable[tuple[str, float, float]]) -> dict[str, Series]:
    """Series by key, from key, step and value of every point."""
    found: dict[str, list[tuple[float, float]]] = {}
    for key, step, value in points:
        found.setdefault(key, []).append((step, value))
    return {key: Series.of(pairs) for key, pairs in found.items()}


@dataclass
class Metrics:
    """All metrics of a run."""

    source: str = ""  # empty if nothing could be read
    series: dict[str, Series] = field(default_factory=dict)
    seconds: float | None = None  # from the first to the last value, if the logger has saved it
    pictures: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # the latest of every key: step, PNG file
    notes: list[str] = field(default_factory=list)  # errors of reading
    hparams: dict[str, Any] = field(default_factory=dict)  # arguments of the learner, if the file holds them
