"""`lightning-ff record RUN`: results of finished runs as JSON files, one per configuration, with all of its seeds."""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Sequence
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

from lightning_ff.cli.run_file import write_json
from lightning_ff.report.command import exit_code
from lightning_ff.report.files import CONFIG, RUN, ReportError, find_runs, read_yaml
from lightning_ff.report.numbers import Stat
from lightning_ff.report.readers import METRICS
from lightning_ff.report.runs import Run
from lightning_ff.report.settings import compared, flat, seeds

Row = dict[str, float | None]
RESULT = {"configuration", "hash", "runs", "statistics"}
MADE = {"command", "config_hash", "end", "git", "hardware", "minutes", "processes", "resumed_from", "start", "threads"}
MADE |= {"versions"}
ENTRY = MADE | {"rows", "seeds", "values"}
_AGAIN = "restore it, or remove it and make it again"


def write_results(given: Sequence[Path], output: Path | None = None) -> list[str]:
    """Add all runs in folders to the files of their configurations, or none of them; returns a line per run.

    Raises:
        ReportError: a run is not finished, a file is missing or damaged, or `output` is for another configuration.
    """
    results: dict[Path, dict[str, Any]] = {}
    lines = []
    for folder in find_runs(given):
        configuration, entry = _read_run(folder)
        key, names = hash_of(configuration), flat(configuration)
        file = output or Path("results", f"{names.get('model')}_{names.get('data')}_{key[:8]}.json")
        if file not in results:
            new = {"configuration": configuration, "hash": key, "runs": []}
            results[file] = read_results(file) if file.exists() else new
        if (other := results[file]["hash"]) != key:
            found = f"--output {file} is for configuration {other[:8]}, and {folder} has configuration {key[:8]}"
            raise ReportError(f"{found}: give another file, or leave out --output")
        lines.append(f"{file}: {_add(results[file]['runs'], entry)}")
    for file, result in results.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {**result, "statistics": statistics(result["runs"])})
    return lines


def _add(runs: list[dict[str, Any]], entry: dict[str, Any]) -> str:
    """Add a run, in place of one with the same seeds; returns what was done."""
    others = [run for run in runs if run["seeds"] != entry["seeds"]]
    done = "added" if len(others) == len(runs) else "replaced"
    runs[:] = sorted([*others, entry], key=lambda run: [f"{seed!s:>20}" for _, seed in sorted(run["seeds"].items())])
    named = ", ".join(f"{name}={seed}" for name, seed in sorted(entry["seeds"].items()))
    return f"{done} the run with {named or 'no seed'}, {len(runs)} in total"


def canonical(value: Any, name: str = "") -> Any:
    """A configuration as plain JSON, without null, empty parts and settings that `lightning-ff report` ignores.

    Example::

        >>> canonical({"seed_everything": 1, "data": {"class_path": "a.B", "init_args": {"root": "c", "size": 8}}})
        {'data': {'class_path': 'a.B', 'init_args': {'size': 8}}}
    """
    if isinstance(value, dict):
        names = {key: name if key in ("class_path", "init_args") else f"{name}.{key}".lstrip(".") for key in value}
        inner = {str(key): canonical(each, names[key]) for key, each in value.items() if compared(names[key])}
        return {key: each for key, each in inner.items() if each is not None and each != {}}
    if isinstance(value, list):
        return [canonical(each, name) for each in value]
    plain = isinstance(value, str | int | None) or (isinstance(value, float) and isfinite(value))
    return value if plain else str(value)


def hash_of(configuration: dict[str, Any]) -> str:
    """SHA-256 of a canonical configuration, as JSON with sorted keys and without spaces."""
    return sha256(json.dumps(configuration, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Canonical configuration of a finished run, and its entry in a file of results."""
    remedies = ("give the folder of a run", "fit with a CSVLogger as the first logger", "fit it with this version")
    for file, remedy in zip((CONFIG, METRICS, RUN), remedies, strict=True):
        if not (folder / file).is_file():
            raise ReportError(f"{folder} has no {file}: {remedy}")
    notes: list[str] = []
    config, text = read_yaml(folder / CONFIG, notes)
    if notes:
        raise ReportError(f"{folder}: {notes[0]}: {_AGAIN}")
    made = _read_json(folder / RUN, MADE)
    if made["end"] is None:
        raise ReportError(f"{folder} is not finished: wait for its end, or resume it with --ckpt_path")
    if made["config_hash"] != sha256(text.encode()).hexdigest():
        raise ReportError(f"{folder / CONFIG} was changed after the run started: {_AGAIN}")
    values, rows = _values(_read_rows(folder / METRICS), config.get("checkpoint"))
    if not values["last"] and not values["test"]:
        raise ReportError(f"{folder / METRICS} has no val/ or test/ metric: validate in fit, or set --test_after_fit")
    made["command"] = made["command"] and _without_folders(made["command"])
    return canonical(config), {**made, "rows": rows, "seeds": seeds(Run(folder, config=config)), "values": values}


def _without_folders(command: str) -> str:
    """A command without folders of a machine: a path in a repository is relative to it, another one its last part.

    Example::

        >>> _without_folders("lightning-ff fit --data.root /home/me/data --trainer.max_epochs 5")
        'lightning-ff fit --data.root data --trainer.max_epochs 5'
    """
    return re.sub(r"(?<=[ =])/[^\s'\"]+", lambda found: _relative(Path(found[0])), command)


def _relative(path: Path) -> str:
    root = next((parent for parent in path.parents if (parent / ".git").exists()), path.parent)
    return str(path.relative_to(root))


def _read_rows(file: Path) -> list[Row]:
    """Rows without empty cells; NaN and infinity become None."""
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            table = csv.DictReader(lines, restval="missing cell")
            rows = [{name: _number(cell) for name, cell in cells.items() if cell != ""} for cells in table]
    except (csv.Error, TypeError, ValueError) as error:
        raise ReportError(f"{file} is damaged ({error}): {_AGAIN}") from None
    if not rows or "step" not in rows[0]:
        raise ReportError(f"{file} has no row with a step: {_AGAIN}")
    return rows


def _number(cell: str) -> float | None:
    value = float(cell)
    return (int(cell) if cell.isdigit() else value) if isfinite(value) else None


def _values(rows: Sequence[Row], checkpoint: Any) -> tuple[dict[str, Row], list[Row]]:
    """Last metrics of validation and test, those of the row with the best monitored value, and the rows of all."""
    monitor, mode = (checkpoint.get(key) for key in ("monitor", "mode")) if isinstance(checkpoint, dict) else (None, "")
    measured = {i: value for i, row in enumerate(rows) if (value := row.get(str(monitor))) is not None}
    best = [(max if mode == "max" else min)(measured, key=lambda i: measured[i])] if measured else []
    source = {
        "best": {key: i for i in best for key in rows[i] if key.startswith("val/") or key == monitor},
        "last": {key: i for i, row in enumerate(rows) for key in row if key.startswith("val/")},
        "test": {key: i for i, row in enumerate(rows) for key in row if key.startswith("test/")},
    }
    values = {kind: {key: rows[i][key] for key, i in found.items()} for kind, found in source.items()}
    return values, [rows[i] for i in sorted({i for found in source.values() for i in found.values()})]


def statistics(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1 in the denominator) and number of values, over runs."""
    made: dict[str, Any] = {"best": {}, "last": {}, "test": {}}
    for kind, found in made.items():
        for key in sorted({key for run in runs for key in run["values"][kind]}):
            stat = Stat.of(run["values"][kind].get(key) for run in runs)
            found[key] = {"count": stat.count, "deviation": stat.deviation, "mean": stat.mean}
    return made


def read_results(file: Path) -> dict[str, Any]:
    """A file of results; raises `ReportError` if it is not as `write_results` writes it."""
    result = _read_json(file, RESULT)
    try:
        good = result["hash"] == hash_of(result["configuration"]) and result["statistics"] == statistics(result["runs"])
        good = good and all(run.keys() == ENTRY for run in result["runs"])
    except (AttributeError, LookupError, TypeError, ValueError):
        good = False
    if not good:
        raise ReportError(f"{file} was changed since lightning-ff record wrote it: {_AGAIN}")
    return result


def _read_json(file: Path, keys: set[str]) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReportError(f"{file} is no JSON ({error}): {_AGAIN}") from None
    if not isinstance(found, dict) or found.keys() != keys:
        raise ReportError(f"{file} must hold {', '.join(sorted(keys))}: {_AGAIN}")
    return found


def parser() -> argparse.ArgumentParser:
    """The parser of `lightning-ff record`."""
    text = "results of finished runs to JSON files, one per configuration: values, seeds, command, commit, hardware."
    made = argparse.ArgumentParser("lightning-ff record", description=f"Write {text}")
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or a folder above several")
    made.add_argument("--output", "-o", type=Path, help="JSON file (results/<model>_<data>_<hash>.json)")
    return made


def record(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code: 0, or 2 for an error, reported in one line."""
    given = parser().parse_args(arguments)
    return exit_code("record", given.output, "a JSON", lambda: "\n".join(write_results(given.runs, given.output)))
