"""`lightning-ff matrix FILE`: runs of configurations and seeds, one after another, and a report of all runs."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lightning_ff.cli.run_file import write_json
from lightning_ff.report.files import ReportError

ENDED_EARLY = 143  # exit code of a run that got a SIGTERM
_DONE = "finished.json"


class MatrixError(Exception):
    """The file is invalid, or its runs cannot be made; the message is one line."""


class Run(NamedTuple):
    """One run: its name, seed, folder and the arguments of `lightning-ff fit`."""

    name: str
    seed: int
    folder: Path
    arguments: list[str]


def planned(file: Path, more: Sequence[str] = ()) -> list[Run]:
    """The runs of a file, in order.

    Args:
        file: YAML with `output` (a folder) and `runs`: names to `config` (a file, relative to this one), `arguments`
            (options of `fit` by name, without dashes) and `seeds`; `arguments` and `seeds` at the top level are for all
            runs.
        more: Further arguments for every run.

    Raises:
        MatrixError: the file is missing or invalid.
    """
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise MatrixError(f"{file}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise MatrixError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict) or not {"output", "runs"} <= given.keys():
        raise MatrixError(f"{file}: give output (a folder) and runs (names to {{config: FILE}})")
    _check(str(file), given, {"output": str, "runs": dict, "seeds": list, "arguments": dict})
    runs: list[Run] = []
    for name, entry in given["runs"].items():
        if not isinstance(entry, dict) or "config" not in entry:
            raise MatrixError(f"{file}: runs.{name} needs config: FILE")
        _check(f"{file}: runs.{name}", entry, {"config": str, "seeds": list, "arguments": dict})
        config = file.parent / entry["config"]
        if not config.is_file():
            raise MatrixError(f"{file}: runs.{name}.config={entry['config']}: there is no file {config}")
        options = {**given.get("arguments", {}), **entry.get("arguments", {})}
        seeds = entry["seeds"] if "seeds" in entry else given.get("seeds", [0])
        if len(set(map(str, seeds))) < len(seeds):
            raise MatrixError(
                f"{file}: runs.{name}: seeds={seeds} has one twice, whose folder is the same: give each once"
            )
        runs += [_run(str(name), seed, Path(given["output"]), config, options, more) for seed in seeds]
    if not runs:
        raise MatrixError(f"{file}: no run to make, since runs or seeds is empty")
    return runs


def _check(where: str, given: dict[str, Any], known: Mapping[str, type]) -> None:
    for key, value in given.items():
        if key not in known:
            raise MatrixError(f"{where}: unknown key {key!r}, known are {', '.join(known)}")
        if not isinstance(value, known[key]):
            raise MatrixError(f"{where}: {key}={value!r} must be a {known[key].__name__}")


def _run(name: str, seed: Any, output: Path, config: Path, options: dict[str, Any], more: Sequence[str]) -> Run:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise MatrixError(f"runs.{name}: seeds must be whole numbers, not {seed!r}")
    if seed < 0:
        raise MatrixError(f"runs.{name}: seeds must be 0 or larger, not {seed}")
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise MatrixError(f"runs: the name {name!r} is that of a folder in output: give one without slashes")
    logger = {"save_dir": str(output), "name": name, "version": f"seed{seed}"}
    arguments = ["--config", str(config), "--seed_everything", str(seed), "--data.seed", str(seed)]
    for key, value in options.items():
        arguments += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    arguments += ["--trainer.logger", json.dumps({"class_path": "CSVLogger", "init_args": logger})]
    arguments += ["--trainer.enable_progress_bar", "false", "--test_after_fit", "true", *more]
    return Run(name, seed, output / name / f"seed{seed}", arguments)


def make(run: Run) -> str:
    """Make one run in its own process, from its last checkpoint if interrupted, unless finished; returns its status."""
    done = run.folder / _DONE
    if done.exists():
        try:
            made_with = json.loads(done.read_text(encoding="utf-8"))
        except ValueError as error:
            raise MatrixError(f"{done} is damaged ({error}): remove it, and the run is resumed") from None
        if made_with != run.arguments:
            raise MatrixError(f"{run.folder} was made with other arguments: remove it, or name the run otherwise")
        return "done before"
    run.folder.mkdir(parents=True, exist_ok=True)
    last = run.folder / "checkpoints" / "last.ckpt"
    resume = ["--ckpt_path", str(last)] if last.exists() else []
    if resume and (run.folder / "metrics.csv").exists():  # the logger would overwrite it
        (run.folder / "metrics.csv").replace(run.folder / f"metrics-{time.time_ns()}.csv")
    start = time.monotonic()
    with (run.folder / "output.log").open("a", encoding="utf-8") as log:
        command = [sys.executable, "-m", "lightning_ff", "fit", *run.arguments, *resume]
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    _merge_metrics(run.folder)
    if code == ENDED_EARLY:
        return f"ended early by SIGTERM, see {log.name}; it is resumed the next time"
    if code:
        return f"failed, see {log.name}"
    write_json(done, run.arguments)
    return f"{'went on and ' if resume else ''}finished in {(time.monotonic() - start) / 60:.1f} min"


def _merge_metrics(folder: Path) -> None:
    """Merge the metrics of a resumed run, without rows after the checkpoint that it was resumed from."""
    parts = [*sorted(folder.glob("metrics-*.csv")), folder / "metrics.csv"]
    if len(parts) < 2 or not parts[-1].exists():
        return
    rows: list[dict[str, str]] = []
    for part in parts:
        with part.open(newline="", encoding="utf-8") as file:
            new = list(csv.DictReader(file))
        first = min((int(row["step"]) for row in new if row.get("step")), default=None)
        if first is not None:
            rows = [row for row in rows if not row.get("step") or int(row["step"]) < first]
        rows += new
    merged = folder / "metrics.csv.partial"
    with merged.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row), restval="")
        table.writeheader()
        table.writerows(rows)
    merged.replace(parts[-1])
    for part in parts[:-1]:
        part.unlink()


def matrix(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code: 0, 1 if a run failed, which does not stop the others, 2 for an error."""
    from lightning_ff.report.page import write_report

    parser = argparse.ArgumentParser(
        "lightning-ff matrix",
        description="Make the runs of a file, one after another: finished runs are skipped, interrupted runs resume. "
        "Then write report.html into their folder. Further options are passed to every run, such as --data.root DIR.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="YAML: output, runs, seeds, arguments")
    given, more = parser.parse_known_args(arguments)
    try:
        runs, failed = planned(given.file, more), False
        for run in runs:
            print(f"{run.name} seed {run.seed}", end=" ... ", flush=True)
            status = make(run)
            print(status, flush=True)
            failed |= status.startswith(("failed", "ended early"))
        output = runs[0].folder.parent.parent
        print(f"report  {write_report([output], output / 'report.html', given.file.stem)}")
    except (MatrixError, ReportError, OSError) as error:
        print(f"lightning-ff matrix: error: {error}", file=sys.stderr)
        return 2
    return int(failed)
