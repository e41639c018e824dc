"""Metrics of a run, from the files of any logger."""

from __future__ import annotations

import csv
from math import inf
from pathlib import Path

from lightning_ff.report.events import EVENTS, read_events
from lightning_ff.report.series import Metrics, by_key
from lightning_ff.report.wandb_file import find_wandb, read_wandb

METRICS = "metrics.csv"
_STEPS, _LARGEST = 2**53, 1e100


def read_metrics(folder: Path) -> Metrics:
    """Metrics of a run's folder, from a CSV file, TensorBoard's event files or the file of a W&B run."""
    if (folder / METRICS).is_file():
        return read_csv(folder / METRICS)
    if any(folder.glob(EVENTS)):
        return read_events(folder)
    if file := find_wandb(folder):
        return read_wandb(file)
    return Metrics(notes=[f"no readable metrics: neither {METRICS} nor TensorBoard events nor the file of a W&B run"])


def read_csv(file: Path) -> Metrics:
    """Metrics of a CSVLogger; an incomplete last line of an interrupted run is read as far as possible."""
    text = file.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    rows, notes = list[tuple[float | None, dict[str, str]]](), list[str]()
    try:
        for row in csv.DictReader(text.splitlines()):
            rows.append((number(row.get("step")), row))
    except csv.Error as error:
        notes.append(f"{METRICS} cannot be read after {len(rows)} rows: {error}")
    cells = ((key, step, number(cell)) for step, row in rows for key, cell in row.items() if key and key != "step")
    known = ((key, step, value) for key, step, value in cells if step is not None and value is not None)
    series = by_key((key, step, value) for key, step, value in known if abs(step) < _STEPS and _is_sound(key, value))
    return Metrics(METRICS, series, notes=notes if series else [*notes, f"{METRICS} holds no values"])


def _is_sound(key: str, value: float) -> bool:
    """Whether a value can be that of its key: epochs are counted; others may be NaN or infinite, but not beyond."""
    return abs(value) < _STEPS if key == "epoch" else not abs(value) > _LARGEST or abs(value) == inf


def number(text: object) -> float | None:
    """A number, or None for anything else."""
    try:
        return float(text) if isinstance(text, str) and text.strip() else None
    except ValueError:
        return None
