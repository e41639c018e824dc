"""Accuracy of the networks, and of each block on its own."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_ff.report import measures
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Child, Column, Markup, Rows, element, folded, table
from lightning_ff.report.numbers import DASH, Stat, span
from lightning_ff.report.sections.base import Section, chip, named
from lightning_ff.report.stored import STAGES, either, measured, of_class, representations

_TESTED = {"": "Test", "last": "Test, last checkpoint", "best": "Test, best checkpoint"}
_ACROSS, _CLASSES = 6, 25


def accuracy(groups: Sequence[Group]) -> Section | None:
    """Tables of networks, blocks and classes."""
    parts = [_networks(groups), _blocks(groups), _classes(groups)]
    return Section("accuracy", "Accuracy", parts) if any(parts) else None


def percent(values: Sequence[float | None]) -> Stat:
    """Mean and deviation in per cent."""
    return Stat.of(values).times(100)


def _networks(groups: Sequence[Group]) -> Markup:
    runs = [run for group in groups for run in group.runs]
    kinds = list(dict.fromkeys(kind for run in runs for kind in measures.by_checkpoint(run))) or [""]
    columns = [Column("Configuration"), Column("Runs", 0)]
    columns += [Column(_TESTED.get(kind, f"Test, {kind}"), 2) for kind in kinds]
    columns += [Column("Validation, best", 2), Column("Validation, last", 2), Column("Epochs"), Column("Training time")]
    rows: list[list[Cell]] = []
    for group in groups:
        tested = [percent([measures.of_test(run, "acc", kind) for run in group.runs]) for kind in kinds]
        best = percent([run.best("val/acc") for run in group.runs])
        last = percent([measures.validation(run, "acc") for run in group.runs])
        epochs = span(run.epochs for run in group.runs if run.epochs is not None)
        rows.append([named(group), len(group.runs), *tested, best, last, epochs, measures.training_time(group.runs)])
    between = "between the first logged value and the last"
    guessed = any(guessed and seconds is not None for seconds, guessed in (run.seconds for run in runs))
    if guessed:
        between = "between the writing of the configuration and of the last checkpoint, by the times of the files"
    caption = [
        "Accuracy of the networks in per cent. ",
        "“Best” is the highest of all validations since every block has begun to learn, “last” the last one. ",
        f"Epochs are those begun, time is a mean over runs. {'With ≈ it' if guessed else 'It'} lies {between}.",
    ]
    return table(columns, [Rows(rows)], caption)


def _blocks(groups: Sequence[Group]) -> Child:
    names = sorted({*measures.blocks(groups, "test/acc/"), *measures.blocks(groups, "val/acc/")})
    if not names:
        return None
    by_group: list[list[Cell]] = []
    stages: list[str | None] = []
    for group in groups:  # the test, if every run has one
        tested = all(measures.by_checkpoint(run) for run in group.runs)
        validated = any(key.startswith("val/acc") for run in group.runs for key in run.series)
        stages.append("test" if tested else "validation" if validated else None)
        read = measures.of_test if tested else measures.validation
        by_group.append([percent([read(run, f"acc/{name}") for run in group.runs]) for name in names])
    distinct = {stage for stage in stages if stage}
    shown = "test or validation" if len(distinct) != 1 else next(iter(distinct))
    caption = (
        f"Accuracy of each block on its own in per cent ({shown} samples): the class of the highest score that "
        f"the block alone gives. {DASH}: the network has no such block, or it gives no scores."
    )
    marks = [f" {stage or ''}" if len(distinct) > 1 else None for stage in stages]
    heads = [[chip(group), mark] for group, mark in zip(groups, marks, strict=True)]
    if len(groups) <= _ACROSS:
        columns = [Column("Block"), *(Column(head, 2) for head in heads)]
        rows: list[list[Cell]] = [[name, *cells] for name, *cells in zip(names, *by_group, strict=True)]
    else:
        columns = [Column(""), *(Column(name, 2) for name in names)]
        rows = [[element("span", head), *cells] for head, cells in zip(heads, by_group, strict=True)]
    return table(columns, [Rows(rows)], caption)


def _classes(groups: Sequence[Group]) -> Child:
    """Accuracy by class, of the configurations that stored it."""
    found = [group for group in measured(groups) if representations(group)[0].accuracy is not None]
    if not found:
        return None
    stored = representations(*found)
    names = list(dict.fromkeys(name for each in stored for name in each.classes))
    stages = either(STAGES.get(each.stage, each.stage) for each in stored)
    columns = [Column("Class"), *(Column(chip(group), 2) for group in found)]
    rows: list[list[Cell]] = [
        [name, *(of_class(group, name, lambda stored: stored.accuracy).times(100) for group in found)] for name in names
    ]
    made = table(columns, [Rows(rows)], f"Accuracy by class in per cent ({stages} samples of the class).")
    return made if len(names) <= _CLASSES else folded("Accuracy by class", made, printed=False)
