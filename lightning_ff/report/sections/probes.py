"""Accuracy of linear probes of each layer, as logged by a `ProbeMonitor`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lightning_ff.figures import probe_bars
from lightning_ff.report import measures
from lightning_ff.report.drawing import drawn
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Child, Column, Markup, Rows, table
from lightning_ff.report.numbers import Stat
from lightning_ff.report.sections.base import Section, chip

_INPUT = "input"
_KINDS = {
    "probe": "Accuracy of a logistic regression on each layer, in per cent, over all classes: cross-validated on as "
    "many samples of each class, whether the network tells them right or not.",
    "probe_unseen": "Balanced accuracy of telling a class that was held out of training from all others, in per "
    "cent: 50 by chance.",
}
_LABELS = {"probe": "accuracy of the probe", "probe_unseen": "balanced accuracy, held-out class"}


def probes(groups: Sequence[Group]) -> Section | None:
    """A table and a picture for each type of probe."""
    parts: list[Child] = []
    for kind, caption in _KINDS.items():
        found = {group.number: values for group in groups if (values := _values(group, kind))}
        shown = [group for group in groups if group.number in found]
        if shown:
            parts += [_table(shown, found, caption), _bars(shown, found, kind)]
    return Section("probes", "Linear probes", parts) if parts else None


def _values(group: Group, kind: str) -> dict[str, Stat]:
    """Mean and deviation by layer, of the test or else the last validation."""
    for stage in ("test", "val"):
        names = measures.blocks([group], f"{stage}/{kind}/")
        if names:
            prefix = f"{stage}/{kind}/"
            return {name: Stat.of(measures.measured_value(run, prefix + name) for run in group.runs) for name in names}
    return {}


def _table(groups: Sequence[Group], found: dict[int, dict[str, Stat]], caption: str) -> Markup:
    names = sorted({name for values in found.values() for name in values}, key=lambda name: (name != _INPUT, name))
    columns = [Column("Layer"), *(Column(chip(group), 1) for group in groups)]
    rows: list[list[Cell]] = []
    for name in names:
        stats = [found[group.number].get(name, Stat.of([None])) for group in groups]
        rows.append(["the image itself" if name == _INPUT else name, *(stat.times(100) for stat in stats)])
    return table(columns, [Rows(rows)], caption)


def _bars(groups: Sequence[Group], found: dict[int, dict[str, Stat]], kind: str) -> Markup | None:
    heights: dict[str, dict[str, float]] = {}
    spread: dict[str, dict[str, float]] = {}
    for group in groups:
        values = {name: stat for name, stat in found[group.number].items() if name != _INPUT and stat.mean is not None}
        model = f"{group.letter} {group.name}"
        heights[model] = {name: float(stat.mean or 0.0) for name, stat in values.items()}
        deviations = {name: stat.deviation for name, stat in values.items() if stat.deviation is not None}
        if deviations:
            spread[model] = deviations
    of_pixels = [stat.mean for values in found.values() if (stat := values.get(_INPUT)) and stat.mean is not None]
    same = len({round(value, 6) for value in of_pixels}) == 1  # other data have another line
    make = partial(probe_bars, heights, of_pixels[0] if same else None, spread or None, _LABELS[kind])
    return drawn(make, f"Bars of the {_LABELS[kind]} by layer", "The same as bars.")
