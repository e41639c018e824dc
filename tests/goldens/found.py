"""Results of a case as plain data, and the differences of two results."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_DOTTED = ("class_path", "_class_path", "_instantiator")
_FIRST = 2  # numbers of a tensor that are kept beside its hash


class Found(NamedTuple):
    """Entries of a case, by name.

    Attributes:
        structure: Names, shapes and settings, which are the same on every machine.
        values: Numbers, which depend on the kernels of the machine.
    """

    structure: dict[str, Any]
    values: dict[str, Any]


def together(**parts: Found) -> Found:
    """Several runs of one case."""
    return Found({name: f.structure for name, f in parts.items()}, {name: f.values for name, f in parts.items()})


def kind(value: Any) -> Any:
    """Type and shape of a tensor, such as `float32 (12, 4)`; a plain value is returned unchanged."""
    if not isinstance(value, Tensor):
        return value
    graph = "" if value.grad_fn is None else " with a graph"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}{graph}"


def digest(value: Tensor) -> dict[str, Any]:
    """Hash of a tensor's bytes, and its first numbers for the reader."""
    flat = value.detach().cpu().contiguous().flatten()
    sha = hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()
    return {"sha256": sha, "first": flat[:_FIRST].tolist()}


def plain(value: Any) -> Any:
    """Arguments in a checkpoint, with the last part of dotted names alone: modules may move."""
    if isinstance(value, Mapping):
        return {str(key): v.rpartition(".")[2] if key in _DOTTED else plain(v) for key, v in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else kind(value)


def text(value: Any, indent: str = "") -> str:
    """JSON with a line for every entry; what is in a tensor or a list stays on one."""
    if not isinstance(value, dict) or not value or "sha256" in value:
        return json.dumps(value)
    inner = f"{indent} "
    lines = [f"{inner}{json.dumps(str(key))}: {text(entry, inner)}" for key, entry in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def rows(file: Path) -> tuple[list[str], list[dict[str, float]]]:
    """Columns and rows of a `metrics.csv`, without empty cells and times."""
    with file.open(newline="") as text:
        reader = csv.DictReader(text)
        columns = sorted(name for name in reader.fieldnames or [] if "time" not in name)
        return columns, [{name: float(row[name]) for name in columns if row[name]} for row in reader]


def differences(recorded: Any, found: Any, name: str = "") -> list[str]:
    """One sentence for every entry that differs: which one, and by how much."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        if "sha256" in recorded and "sha256" in found:
            return _of_tensors(recorded, found, name)
        at = f"{name}/" if name else ""
        lost = [f"{at}{key}: recorded, and not found" for key in recorded.keys() - found.keys()]
        new = [f"{at}{key}: found, and not recorded" for key in found.keys() - recorded.keys()]
        both = [key for key in recorded if key in found]
        return sorted(lost + new) + [d for key in both for d in differences(recorded[key], found[key], f"{at}{key}")]
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        return _of_lists(recorded, found, name)
    return [] if recorded == found and type(recorded) is type(found) else [_said(recorded, found, name)]


def _of_tensors(recorded: dict[str, Any], found: dict[str, Any], name: str) -> list[str]:
    if recorded["sha256"] == found["sha256"]:
        return []
    return _of_lists(recorded["first"], found["first"], name) or [f"{name}: differs behind the first {_FIRST} numbers"]


def _of_lists(recorded: list[Any], found: list[Any], name: str) -> list[str]:
    each = [differences(a, b, f"{name}/{i}") for i, (a, b) in enumerate(zip(recorded, found, strict=True))]
    return [f"{of_one[0]} ({sum(map(bool, each))} of {len(each)} differ)" for of_one in each if of_one][:1]


def _said(recorded: Any, found: Any, name: str) -> str:
    numbers = all(isinstance(value, (int, float)) for value in (recorded, found))
    apart = f", {abs(recorded - found)} apart" if numbers else ""
    return f"{name}: {recorded!r} was recorded, {found!r} was found{apart}"
