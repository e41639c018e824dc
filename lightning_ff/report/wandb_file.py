"""Metrics and pictures of a W&B run, from its local file, with or without a network."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_ff.report.series import Metrics, by_key

FILES = "run-*.wandb"
_HEADER, _BLOCK = 7, 32768
_FULL, _LAST = 1, 4


def find_wandb(folder: Path) -> Path | None:
    """The file of a W&B run, from its folder or from that of its checkpoints, `save_dir/project/run id`."""
    run = folder.absolute()
    beside = [file for file in run.parent.parent.glob("wandb/*/*.wandb") if file.name == f"run-{run.name}.wandb"]
    return max(folder.glob(FILES), default=max(beside, default=None))


def home_of(file: Path) -> Path:
    """Folder of a file of metrics; of a W&B file that of the run's configuration and checkpoints, if there is one."""
    if file.suffix != ".wandb":
        return file.parent
    beside = [folder for folder in sorted(file.parent.parent.parent.glob("*")) if folder.name != "wandb"]
    homes = [folder / file.stem.removeprefix("run-") for folder in beside]
    return next((home for home in homes if home.is_dir()), file.parent)


def read_wandb(file: Path) -> Metrics:
    """Numbers and the latest picture of every key."""
    try:
        records = list(records_of(file.read_bytes()))
        rows = [values_of(each.history.item) for each in records if each.WhichOneof("record_type") == "history"]
        configs = [values_of(each.run.config.update) | values_of(each.config.update) for each in records]
    except Exception as error:  # another format, or another version of wandb
        return Metrics(notes=[f"{file.name} of the W&B run cannot be read: {error}"])
    points: list[tuple[str, float, float]] = []
    pictures: dict[str, tuple[int, bytes]] = {}
    files = file.parent / "files"
    for row in rows:
        step = row.get("trainer/global_step", row.get("_step", 0))
        for key, value in row.items():
            if isinstance(value, (int, float)) and not key.startswith(("_", "trainer/")):
                points.append((key, step, value))
            names = value.get("filenames", []) if isinstance(value, dict) else []
            given = [files / name for name in names if isinstance(name, str)]
            inside = (each for each in given if each.is_file() and each.resolve().is_relative_to(files.resolve()))
            if shown := next(inside, None):
                pictures[key] = (int(step), shown.read_bytes())
    series = by_key(points)
    times = [row["_timestamp"] for row in rows if "_timestamp" in row and not any(k.startswith("test/") for k in row)]
    seconds = max(times) - min(times) if len(times) > 1 else None
    hparams = {key: value for each in configs for key, value in each.items() if key not in ("_wandb", "cli")}
    notes = [] if series else [f"{file.name} of the W&B run holds no values"]
    return Metrics("W&B file" if series else "", series, seconds, pictures, notes, hparams)


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
        _, size, kind = struct.unpack_from("<IHB", data, at)
        if at + 7 + size > len(data):
            return  # still being written
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (_FULL, _LAST):
            yield Record.FromString(record)
            record = b""
