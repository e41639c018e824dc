"""Reads the file of an offline W&B run: wandb has no reader of its own."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HEADER, _BLOCK = 7, 32768
_FULL, _LAST = 1, 4


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
        records = list(_records(file.read_bytes()))
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
            run.config.update(_values(record.run.config.update))
        elif kind == "config":
            run.config.update(_values(record.config.update))
        elif kind == "history":
            run.history.append(_values(record.history.item))
    return run


def _values(items: Iterable[Any]) -> dict[str, Any]:
    """Values by key; a key with several parts makes dictionaries within each other."""
    values: dict[str, Any] = {}
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        inner = values
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return values


def _records(data: bytes) -> Iterator[Any]:
    """Records of a file in LevelDB's log format: pieces in blocks of 32 KiB, whose last bytes may be padding."""
    from wandb.proto.wandb_internal_pb2 import Record

    at, record = _HEADER, b""
    while at + 7 <= len(data):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + size > len(data):
            return  # still being written
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (_FULL, _LAST):
            yield Record.FromString(record)
            record = b""
