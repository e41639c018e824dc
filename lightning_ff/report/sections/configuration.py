"""Settings: first the differences, then the full configurations, folded."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_ff.report.files import HPARAMS
from lightning_ff.report.grouping import Group, differences
from lightning_ff.report.html import Child, Column, Markup, Rows, element, folded, table
from lightning_ff.report.numbers import DASH
from lightning_ff.report.runs import Run
from lightning_ff.report.sections.base import Section, chip, named, paragraph, path
from lightning_ff.report.settings import ABSENT, written

_ACROSS = 6
_NONE = f"{DASH}: none, or nowhere saved."


def configuration(groups: Sequence[Group]) -> Section:
    """Differences between configurations, then the text of each."""
    return Section("configuration", "Configuration", [_differences(groups), *map(_text, groups)])


def _differences(groups: Sequence[Group]) -> Child:
    if len(groups) < 2:
        return None
    rows = differences(groups)
    if not rows:
        return paragraph("No saved setting differs between these configurations.")
    common = [row for row in rows if ABSENT not in row[1]]
    partly = [row for row in rows if ABSENT in row[1]]
    caption = f"Settings in which the configurations differ. {_NONE}"
    if not partly or not common:
        return _rows(groups, rows, caption)
    rest = _rows(groups, partly, f"Settings that only some of the configurations have, or give no value. {_NONE}")
    return [_rows(groups, common, caption), folded(f"{len(partly)} settings that only some of them have", rest)]


def _rows(groups: Sequence[Group], rows: Sequence[tuple[str, list[object]]], caption: str) -> Markup:
    shown = [
        [element("code", name), *(DASH if value is ABSENT else element("code", written(value)) for value in values)]
        for name, values in rows
    ]
    columns, parts = [Column("Setting"), *(Column(chip(group)) for group in groups)], [Rows(shown)]
    if len(groups) > _ACROSS:
        columns = [Column("Setting"), Column("Value")]
        by_group = [[[row[0], row[i]] for row in shown if row[i] != DASH] for i in range(1, len(groups) + 1)]
        parts = [Rows(of_group, named(group)) for of_group, group in zip(by_group, groups, strict=True)]
    return table(columns, parts, caption, "settings")


def _source(run: Run) -> str:
    """Where the learner's arguments come from."""
    return run.metrics.source if run.metrics.hparams else HPARAMS


def _text(group: Group) -> Child:
    run = group.runs[0]
    source, text = ("config.yaml", run.config_text) if run.config_text else (_source(run), run.hparams_text)
    if not text:
        return paragraph(named(group), ": no configuration was saved in ", path(run.folder), ".")
    return folded([named(group), ": ", path(f"{run.folder}/{source}")], element("pre", text), printed=False)
