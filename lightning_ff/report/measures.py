"""The values of a run that a page compares."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_ff.report.grouping import Group
from lightning_ff.report.numbers import duration
from lightning_ff.report.runs import Run


def by_checkpoint(run: Run) -> dict[str, Run]:
    """Runs that measured this one's test accuracy by checkpoint: itself (no name), `last`, `best`, or another file."""
    found = {"": run} if "test/acc" in run.series else {}
    for name, other in run.measured:
        if "test/acc" in other.series:
            kind = next((known for known in ("last", "best") if name == known or name.startswith(f"{known}-")), name)
            found[kind] = other
    return {kind: found[kind] for kind in (*(each for each in ("", "last", "best") if each in found), *found)}


def of_test(run: Run, key: str, kind: str | None = None) -> float | None:
    """A value of the test, such as `acc` or `acc/block00`, by the checkpoint that was tested; the first if None."""
    found = by_checkpoint(run)
    tested = next(iter(found.values()), None) if kind is None else found.get(kind)
    return None if tested is None else tested.last(f"test/{key}")


def validation(run: Run, key: str) -> float | None:
    """A value of the last validation during training, or else of one of the run's checkpoints."""
    return measured_value(run, f"val/{key}")


def measured_value(run: Run, key: str) -> float | None:
    """The last value of a key, in the run itself or else where its checkpoints were measured."""
    return next((each.last(key) for each in (run, *(other for _, other in run.measured)) if key in each.series), None)


def blocks(groups: Sequence[Group], prefix: str) -> list[str]:
    """Names of the blocks with a value in any run, in order; `prefix` such as `test/acc/`."""
    runs = [run for group in groups for run in group.runs]
    runs += [other for run in runs for _, other in run.measured]
    return sorted({key.removeprefix(prefix) for run in runs for key in run.series if key.startswith(prefix)})


def training_time(runs: Sequence[Run]) -> str:
    """Mean training time, with a mark if it is only known from modification times of files."""
    known = [run.seconds for run in runs if run.seconds[0] is not None]
    mean = sum(seconds or 0.0 for seconds, _ in known) / len(known) if known else None
    return ("≈\u2009" if any(guessed for _, guessed in known) else "") + duration(mean)
