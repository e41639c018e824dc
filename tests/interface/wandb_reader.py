"""Reads the file of an offline W&B run: wandb has no reader of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_ff.report.wandb_file import records_of, values_of


@dataclass
class WandbRun:
    """What a run file holds.

    Attributes:
        history: Logged values, one dictionary for each call of `log`.
        config: The run's configuration.
        project: Name of the project.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    project: str = ""

    def images(self, key: str) -> list[str]:
        """Files of the pictures logged under a key, relative to the run's `files` folder."""
        return [name for row in self.history if key in row for name in row[key]["filenames"]]

    def metrics(self) -> dict[str, list[tuple[int, float]]]:
        """Step and value of every number, by key, in the order of logging."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self.history:
            for key, value in row.items():
                if isinstance(value, (int, float)) and not key.startswith(("_", "trainer/")):
                    found.setdefault(key, []).append((row["trainer/global_step"], float(value)))
        return found


def read_run(folder: Path, patience: float = 60.0) -> WandbRun:
    """Read the only run below a folder of W&B files, after `wandb.finish()`, which does not wait for the file."""
    (file,) = folder.rglob("run-*.wandb")
    start = time.monotonic()
    while time.monotonic() < start + patience:
        records = list(records_of(file.read_bytes()))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return _run(records)
        time.sleep(0.05)
    raise TimeoutError(f"{file} has no end after {patience} s: is its run finished?")


def _run(records: list[Any]) -> WandbRun:
    run = WandbRun()
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.project = record.run.project
            run.config.update(values_of(record.run.config.update))
        elif kind == "config":
            run.config.update(values_of(record.config.update))
        elif kind == "history":
            run.history.append(values_of(record.history.item))
    return run
