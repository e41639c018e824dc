"""Links between folders: tests of a run's checkpoints, and the run that resumes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_ff.report.runs import Run


def link(runs: Sequence[Run]) -> list[Run]:
    """Link each run to tests of its checkpoints, the last one first, and to the run it resumes; returns the runs left.

    A folder of `lightning-ff test` is removed if the run that it tested is given, and an interrupted run if another one
    resumes from its checkpoint.
    """
    by_folder = {run.folder.resolve(): run for run in runs}
    gone: set[int] = set()
    for run in sorted(runs, key=lambda each: each.trained, reverse=True):
        source = _source(run, by_folder)
        if source is None or source is run:
            continue
        if not run.trained:
            source.measured.append((checkpoint(run), run))
            gone.add(id(run))
        elif run.series and not _continues(source, run):
            run.earlier = source
            if source.broke_off:
                gone.add(id(source))
    done: set[int] = set()
    for run in runs:
        _prepend_steps(run, done)
        run.measured.sort(key=lambda each: [not each[0].startswith(name) for name in ("last", "best")])
    return [run for run in runs if id(run) not in gone]


def checkpoint(run: Run) -> str:
    """Name of the checkpoint that a run started from, without its suffix."""
    return Path(str(run.config.get("ckpt_path") or "")).name.removesuffix(".ckpt")


def _continues(run: Run, other: Run) -> bool:
    """Whether a run resumes another, directly or through other runs."""
    return run.earlier is not None and (run.earlier is other or _continues(run.earlier, other))


def _prepend_steps(run: Run, done: set[int]) -> None:
    """Prepend the steps of the run that it resumes, once."""
    if run.earlier is None or id(run) in done:
        return
    done.add(id(run))
    _prepend_steps(run.earlier, done)
    start = min(int(series.steps[0]) for key, series in run.series.items() if not key.startswith("test/"))
    for key, series in run.earlier.series.items():
        if key in run.series:
            run.series[key] = run.series[key].after(series, start)
    grown = {name: file for name, file in run.earlier.representations.items() if "-epoch=" in name}
    run.representations = {**grown, **run.representations}


def _source(run: Run, by_folder: dict[Path, Run]) -> Run | None:
    """The run whose checkpoint another loaded; a path is looked up from every folder above the other."""
    given = run.config.get("ckpt_path")
    if not isinstance(given, str):
        return None
    if given == "last":  # of the only other run in the folder
        beside = [other for folder, other in by_folder.items() if folder.parent == run.folder.resolve().parent]
        kept = [other for other in beside if any((other.folder / "checkpoints").glob("last*.ckpt"))]
        return kept[0] if len(kept) == 1 else None
    parts = Path(given).parts
    if "checkpoints" not in parts[:-1]:
        return None
    home = parts[: len(parts) - 1 - parts[::-1].index("checkpoints")]
    ends = [home[-length:] for length in range(len(home), 1, -1)]
    places = [Path(*home), *(above.joinpath(*end) for above in run.folder.resolve().parents for end in ends)]
    return next((by_folder[place] for place in places if place in by_folder), None)
