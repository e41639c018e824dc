"""Single runs: seeds and values, and the command that repeats each run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from lightning_ff.report import measures
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Column, Markup, Rows, element, table
from lightning_ff.report.numbers import DASH
from lightning_ff.report.runs import Run
from lightning_ff.report.sections.accuracy import percent
from lightning_ff.report.sections.base import Section, lead, named, paragraph, path
from lightning_ff.report.settings import flat, seeds, written


def repeating(groups: Sequence[Group]) -> Section:
    """A table of single runs, then commands."""
    columns = [Column("Run"), Column("Seeds"), Column("Epochs"), Column("Test", 2), Column("Validation, best", 2)]
    columns += [Column("Validation, last", 2), Column("Training time")]
    parts = [Rows([_row(run, _varied(group)) for run in group.runs], named(group)) for group in groups]
    caption = (
        "Single runs: accuracy in per cent, epochs begun of those planned, and the seeds in which runs of the "
        "configuration differ, all where they do not."
    )
    shown = table(columns, parts, caption, "runs")
    return Section("runs", "Every run, and how to repeat it", [shown, *map(_commands, groups)])


def _row(run: Run, chosen: set[str]) -> list[Cell]:
    accuracies = [measures.of_test(run, "acc"), run.best("val/acc"), measures.validation(run, "acc")]
    given = ", ".join(f"{name} {written(value)}" for name, value in seeds(run).items() if name in chosen)
    epochs = None if run.epochs is None else f"{run.epochs} of {run.planned}" if run.planned else str(run.epochs)
    shown = [percent([value]) for value in accuracies]
    return [path(run.folder), given or DASH, epochs, *shown, measures.training_time([run])]


def _varied(group: Group) -> set[str]:
    """Seeds that differ between runs, or else all."""
    given = [seeds(run) for run in group.runs]
    names = {name for each in given for name in each}
    return {name for name in names if len({repr(each.get(name)) for each in given}) > 1} or names


def _commands(group: Group) -> list[Markup]:
    with_file = [run for run in group.runs if run.config_text and run.trained]
    if not with_file:
        text = ": made from Python, without a saved configuration; only the script that made it can repeat it."
        return [paragraph(named(group), text if any(run.trained for run in group.runs) else ": no training to repeat.")]
    lines = []
    for run in with_file:
        config, last = shlex.quote(str(run.folder / "config.yaml")), run.folder / "checkpoints" / "last.ckpt"
        version = flat(run.config).get("trainer.logger.version")
        anew = "" if version is None else " --trainer.logger.init_args.version null"  # so that it is not overwritten
        lines.append(f"lightning-ff fit --config {config}{anew}")
        if last.is_file():
            lines.append(f"lightning-ff test --config {config} --ckpt_path {shlex.quote(str(last))}")
    return [lead(named(group)), element("pre", "\n".join(lines), class_="commands")]
