"""Search for the folders of runs, and safe reading of their YAML and picture files."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_ff.report.events import EVENTS
from lightning_ff.report.readers import METRICS
from lightning_ff.report.wandb_file import FILES, home_of

CONFIG, HPARAMS, RUN = "config.yaml", "hparams.yaml", "run.json"
_MARKS = (CONFIG, HPARAMS, "checkpoints", "representations", "figures")


_MOST_VALUES = 100_000


class ReportError(Exception):
    """The report cannot be made; the message is one line."""


def find_runs(given: Sequence[Path]) -> list[Path]:
    """Folders of runs: the given ones, or those below with a metrics file; raises `ReportError` for one without run."""
    found: dict[Path, Path] = {}
    for run in (run for folder in given for run in _runs_in(folder)):
        found.setdefault(run.resolve(), run)
    return list(found.values())


def _runs_in(folder: Path) -> list[Path]:
    if not folder.exists():
        raise ReportError(f"{folder}: no such folder; give a run's log directory such as logs/digits/version_0")
    if not folder.is_dir():
        raise ReportError(f"{folder} is no folder: give a run's log directory such as logs/digits/version_0")
    below = {home_of(file) for pattern in (METRICS, EVENTS, FILES) for file in folder.rglob(pattern)}
    if folder in below:
        return [folder]
    if below and not any((folder / mark).exists() for mark in _MARKS[:2]):
        return sorted(below, key=_natural)
    if any((folder / mark).exists() for mark in _MARKS) or any(folder.glob(FILES)):
        return [home_of(file) for file in folder.glob(FILES)] or [folder]
    raise ReportError(f"{folder} holds no run: neither it nor a folder below it has a {METRICS} or TensorBoard events")


def _natural(folder: Path) -> list[tuple[int, int, str]]:
    """Key of the natural order: version_2 before version_10."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", str(folder))]


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads plain values, and values with a Python tag as text or as their parts; runs no code."""


def _plain(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return suffix.rpartition(":")[2] or node.value


_Loader.add_multi_constructor("", _plain)


def read_yaml(file: Path, notes: list[str]) -> tuple[dict[str, Any], str]:
    """Values and text of a YAML file, empty if there is none; errors are added to the notes."""
    if not file.is_file():
        return {}, ""
    text, values = file.read_text(encoding="utf-8", errors="replace"), None
    try:
        values = yaml.load(text, _Loader)
        _check_size(values)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        values = None
        notes.append(f"{file.name} cannot be read: {' '.join(str(error).split())}")
    if values is not None and not isinstance(values, dict):
        notes.append(f"{file.name} holds no settings")
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}, text


def _check_size(values: Any) -> None:
    """Check that values with aliases are finite, and not too many."""
    open_, seen = [values], 0
    while open_:
        each = open_.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES} values, or one that holds itself")
        if isinstance(each, (dict, list)):
            open_ += each.values() if isinstance(each, dict) else each


def read_pictures(folder: Path, notes: list[str]) -> dict[str, tuple[int, bytes]]:
    """The latest PNG file of every key in a run's `figures` folder, with its number of batches."""
    latest: dict[str, tuple[int, bytes]] = {}
    for file in sorted((folder / "figures").rglob("*.png"), key=_natural):
        step = int(file.stem) if file.stem.isdigit() else 0
        data = file.read_bytes()
        if is_picture(data):
            latest[file.parent.relative_to(folder / "figures").as_posix()] = (step, data)
        else:
            notes.append(f"{file.relative_to(folder)} is no picture that can be shown")
    return latest


def is_picture(data: bytes) -> bool:
    """Whether a browser can show it: a complete PNG or JPEG file."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # raised for a picture that is too large
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                image.load()
    except Exception:  # damaged files raise many types of errors
        return False
    return True
