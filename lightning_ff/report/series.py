"""What a run has measured over its steps: read from the files of whichever logger wrote them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

METRICS = "metrics.csv"
EVENTS = "events.out.tfevents*"


@dataclass(frozen=True)
class Series:
    """One metric over training.

    Attributes:
        steps: Batches at each value `(n,)`.
        values: Values `(n,)`, in the order of logging.
    """

    steps: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]]) -> Series:
        """Of pairs of step and value."""
        pairs = np.array(list(points), dtype=float).reshape(-1, 2)
        return cls(pairs[:, 0].astype(np.int64), pairs[:, 1])

    @property
    def last(self) -> float:
        """The value logged last."""
        return float(self.values[-1])

    @property
    def best(self) -> float | None:
        """The highest value; None where all are NaN."""
        finite = self.values[~np.isnan(self.values)]
        return float(finite.max()) if len(finite) else None

    def after(self, earlier: Series, start: int) -> Series:
        """This series behind what another has below a step: that of a run which was continued."""
        keep = earlier.steps < start
        steps = np.concatenate((earlier.steps[keep], self.steps))
        return Series(steps, np.concatenate((earlier.values[keep], self.values)))


@dataclass
class Metrics:
    """All metrics of a run.

    Attributes:
        source: What they were read from; empty where nothing could be read.
        series: By key.
        seconds: Time from the first value to the last, where the logger wrote it down.
        pictures: The latest picture of every key, as the bytes of a PNG file, and its step.
        notes: What could not be read, and why.
    """

    source: str = ""
    series: dict[str, Series] = field(default_factory=dict)
    seconds: float | None = None
    pictures: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_metrics(folder: Path) -> Metrics:
    """Metrics of a run's folder, from a CSV file, TensorBoard's event files or the file of a W&B run."""
    from lightning_ff.report.events import read_events
    from lightning_ff.report.wandb_file import find_wandb, read_wandb

    if (folder / METRICS).is_file():
        return read_csv(folder / METRICS)
    if any(folder.glob(EVENTS)):
        return read_events(folder)
    file = find_wandb(folder)
    if file is not None:
        return read_wandb(file)
    return Metrics(notes=[f"no readable metrics: neither {METRICS} nor TensorBoard events nor the file of a W&B run"])


def read_csv(file: Path) -> Metrics:
    """Metrics of a CSVLogger; lines that a run which broke off left unfinished count as far as they go."""
    points: dict[str, list[tuple[float, float]]] = {}
    text = file.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    for row in csv.DictReader(text.splitlines()):
        step = number(row.get("step"))
        for key, cell in row.items():
            value = number(cell)
            if step is not None and value is not None and key and key != "step":
                points.setdefault(key, []).append((step, value))
    series = {key: Series.of(pairs) for key, pairs in points.items()}
    return Metrics(METRICS, series, notes=[] if series else [f"{METRICS} holds no values"])


def number(text: object) -> float | None:
    """A number, or None for anything else."""
    try:
        return float(text) if isinstance(text, str) and text.strip() else None
    except ValueError:
        return None
