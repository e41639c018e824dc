"""Accuracy of the networks, and of each block on its own."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_ff.report import measures
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Child, Column, Markup, Rows, element, folded, table
from lightning_ff.report.numbers import DASH, Stat, span
from lightning_ff.report.sections.base import Section, chip, named
from lightning_ff.report.stored import STAGES, either, measured, representations

_TESTED = {"": "Test", "last": "Test, last checkpoint", "best": "Test, best checkpoint"}
_ACROSS, _CLASSES = 6, 25


def accuracy(groups: Sequence[Group]) -> Section | None:
    """Two tables: networks, and their blocks."""
    parts = [_networks(groups), _blocks(groups), _classes(groups)]
    return Section("accuracy", "Accuracy", parts) if any(parts) else None


def percent(values: Sequence[float | None]) -> Stat:
    """Mean and deviation in per cent."""
    return Stat.of(values).times(100)


def _networks(groups: Sequence[Group]) -> Markup:
    kinds = list(dict.fromkeys(kind for group in groups for run in group.runs for kind in measures.by_checkpoint(run)))
    columns = [Column("Configuration"), Column("Runs", 0)]
    columns += [Column(_TESTED.get(kind, f"Test, {kind}"), 2) for kind in kinds or [""]]
    columns += [Column("Validation, best", 2), Column("Validation, last", 2), Column("Epochs"), Column("Training time")]
    rows: list[list[Cell]] = []
    for group in groups:
        tested = [percent([measures.of_test(run, "acc", kind) for run in group.runs]) for kind in kinds or [""]]
        best = percent([run.best("val/acc") for run in group.runs])
        last = percent([measures.validation(run, "acc") for run in group.runs])
        epochs = span([run.epochs for run in group.runs if run.epochs is not None])
        rows.append([named(group), len(group.runs), *tested, best, last, epochs, measures.training_time(group.runs)])
    caption = [
        "Accuracy of the networks in per cent. ",
        "“Best” is the highest of all validations since every block has begun to learn, “last” the last one. ",
        "Epochs are those begun, time is a mean over runs. " + _of_time(groups),
    ]
    return table(columns, [Rows(rows)], caption)


def _of_time(groups: Sequence[Group]) -> str:
    guessed = any(run.seconds[1] and run.seconds[0] is not None for group in groups for run in group.runs)
    if not guessed:
        return "It lies between the first logged value and the last."
    return (
        "With ≈ it lies between the writing of the configuration and of the last checkpoint, by the times of the files."
    )


def _blocks(groups: Sequence[Group]) -> Child:
    names = sorted({*measures.blocks(groups, "test/acc/"), *measures.blocks(groups, "val/acc/")})
    if not names:
        return None
    stages = {group.number: _stage(group) for group in groups}
    cells = {
        (name, group.number): percent([_block(group, run_at, name) for run_at in range(len(group.runs))])
        for name in names
        for group in groups
    }
    distinct = set(stages.values()) - {None}
    stage = distinct.pop() if len(distinct) == 1 else "test or validation"
    caption = (
        f"Accuracy of each block on its own in per cent ({stage} samples): the class of the highest score that "
        f"the block alone gives. {DASH}: the network has no such block, or it gives no scores."
    )
    marks = len({stage for stage in stages.values() if stage}) > 1
    heads = [([chip(each), f" {stages[each.number] or ''}" if marks else None], each) for each in groups]
    if len(groups) <= _ACROSS:
        columns = [Column("Block"), *(Column(head, 2) for head, _ in heads)]
        rows: list[list[Cell]] = [[name, *(cells[name, group.number] for group in groups)] for name in names]
    else:
        columns = [Column(""), *(Column(name, 2) for name in names)]
        rows = [[element("span", head), *(cells[name, each.number] for name in names)] for head, each in heads]
    return table(columns, [Rows(rows)], caption)


def _stage(group: Group) -> str | None:
    """Stage of the accuracy of a group's blocks: the test, if every run has one."""
    if all(measures.by_checkpoint(run) for run in group.runs):
        return "test"
    measured = any(key.startswith("val/acc") for run in group.runs for key in run.series)
    return "validation" if measured else None


def _block(group: Group, place: int, name: str) -> float | None:
    run = group.runs[place]
    read = measures.of_test if _stage(group) == "test" else measures.validation
    return read(run, f"acc/{name}")


def _classes(groups: Sequence[Group]) -> Child:
    """Accuracy by class, of the configurations that stored it."""
    found = [group for group in measured(groups) if representations(group)[0].accuracy is not None]
    if not found:
        return None
    classes = list(dict.fromkeys(name for group in found for each in representations(group) for name in each.classes))
    columns = [Column("Class"), *(Column(chip(group), 2) for group in found)]
    rows: list[list[Cell]] = [[name, *(_of_class(group, name) for group in found)] for name in classes]
    stages = either(STAGES.get(each.stage, each.stage) for group in found for each in representations(group))
    made = table(columns, [Rows(rows)], f"Accuracy by class in per cent ({stages} samples of the class).")
    return made if len(classes) <= _CLASSES else folded("Accuracy by class", made, printed=False)


def _of_class(group: Group, name: str) -> Stat:
    values: list[float | None] = []
    for run in group.runs:
        stored = run.representation
        known = stored is not None and name in stored.classes and stored.accuracy is not None
        values.append(float(stored.accuracy[stored.classes.index(name)]) if known else None)  # type: ignore[index, union-attr]
    return percent(values)
