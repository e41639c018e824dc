"""Metrics and pictures of a W&B run, from its local file, with or without a network."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_ff.report.series import Metrics, Series

FILES = "run-*.wandb"
_HEADER, _BLOCK = 7, 32768
_FULL, _LAST = 1, 4


def find_wandb(folder: Path) -> Path | None:
    """The file of a W&B run, from its folder or from that of its checkpoints, `save_dir/project/run id`."""
    own = sorted(folder.glob(FILES))
    if own:
        return own[-1]
    run = folder.absolute()
    name = f"run-{run.name}.wandb"
    found = sorted(file for file in run.parent.parent.glob("wandb/*/*.wandb") if file.name == name)
    return found[-1] if found else None


def home_of(file: Path) -> Path:
    """Folder of configuration and checkpoints of a W&B run, or else the folder of its file."""
    name = file.stem.removeprefix("run-")
    beside = [folder for folder in sorted(file.parent.parent.parent.glob("*")) if folder.name != "wandb"]
    homes = [folder / name for folder in beside if (folder / name).is_dir()]
    return homes[0] if homes else file.parent


def read_wandb(file: Path) -> Metrics:
    """Numbers and the latest picture of every key."""
    try:
        rows = [
            values_of(record.history.item)
            for record in records_of(file.read_bytes())
            if record.WhichOneof("record_type") == "history"
        ]
    except Exception as error:  # another format, or another version of wandb
        return Metrics(notes=[f"{file.name} of the W&B run cannot be read: {error}"])
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, (int, float)) and not key.startswith(("_", "trainer/")):
                points.setdefault(key, []).append((row.get("trainer/global_step", row.get("_step", 0)), value))
    series = {key: Series.of(pairs) for key, pairs in points.items()}
    times = [row["_timestamp"] for row in rows if "_timestamp" in row and not any(k.startswith("test/") for k in row)]
    seconds = max(times) - min(times) if len(times) > 1 else None
    notes = [] if series else [f"{file.name} of the W&B run holds no values"]
    return Metrics("W&B file" if series else "", series, seconds, _pictures(rows, file.parent / "files"), notes)


def _pictures(rows: Iterable[dict[str, Any]], files: Path) -> dict[str, tuple[int, bytes]]:
    latest: dict[str, tuple[int, bytes]] = {}
    for row in rows:
        for key, value in row.items():
            names = value.get("filenames", []) if isinstance(value, dict) else []
            existing = [files / name for name in names if isinstance(name, str) and _is_inside(files / name, files)]
            if existing:
                latest[key] = (int(row.get("trainer/global_step", row.get("_step", 0))), existing[0].read_bytes())
    return latest


def _is_inside(file: Path, folder: Path) -> bool:
    """Whether a file of that name exists inside the folder."""
    return file.is_file() and file.resolve().is_relative_to(folder.resolve())


def values_of(items: Iterable[Any]) -> dict[str, Any]:
    """Values by key; a key of several parts makes nested dictionaries."""
    values: dict[str, Any] = {}
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        inner = values
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return values


def records_of(data: bytes) -> Iterator[Any]:
    """Records of a file in LevelDB's log format: pieces in blocks of 32 KiB, whose last bytes may be padding."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

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
