"""Accuracy of linear probes of each layer, as logged by a `ProbeMonitor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_ff.figures import probe_bars
from lightning_ff.report import measures
from lightning_ff.report.drawing import drawn
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Child, Column, Markup, Rows, table
from lightning_ff.report.numbers import Stat
from lightning_ff.report.sections.base import Section, chip

_INPUT = "input"
_KINDS = {  # label of the bars and caption of the table
    "probe": (
        "accuracy of the probe",
        "Accuracy of a logistic regression on each layer, in per cent, over all classes: cross-validated on as "
        "many samples of each class, whether the network tells them right or not.",
    ),
    "probe_unseen": (
        "balanced accuracy, held-out class",
        "Balanced accuracy of telling a class that was held out of training from all others, in per "
        "cent: 50 by chance.",
    ),
}


def probes(groups: Sequence[Group]) -> Section | None:
    """A table and a picture for each type of probe."""
    parts: list[Child] = []
    for kind, (label, caption) in _KINDS.items():
        found = [(group, values) for group in groups if (values := _values(group, kind))]
        if found:
            parts += [_table(found, caption), _bars(found, label)]
    return Section("probes", "Linear probes", parts) if parts else None


def _values(group: Group, kind: str) -> dict[str, Stat]:
    """Mean and deviation by layer, of the test or else the last validation."""
    for prefix in (f"test/{kind}/", f"val/{kind}/"):
        if names := measures.blocks([group], prefix):
            return {name: Stat.of(measures.measured_value(run, prefix + name) for run in group.runs) for name in names}
    return {}


def _table(found: Sequence[tuple[Group, Mapping[str, Stat]]], caption: str) -> Markup:
    names = sorted({name for _, values in found for name in values}, key=lambda name: (name != _INPUT, name))
    columns = [Column("Layer"), *(Column(chip(group), 1) for group, _ in found)]
    rows: list[list[Cell]] = []
    for name in names:
        stats = [values.get(name, Stat.of([None])).times(100) for _, values in found]
        rows.append(["the image itself" if name == _INPUT else name, *stats])
    return table(columns, [Rows(rows)], caption)


def _bars(found: Sequence[tuple[Group, Mapping[str, Stat]]], label: str) -> Markup | None:
    heights: dict[str, dict[str, float]] = {}
    spread: dict[str, dict[str, float]] = {}
    for group, values in found:
        model, layers = f"{group.letter} {group.name}", {k: v for k, v in values.items() if k != _INPUT}
        heights[model] = {name: stat.mean for name, stat in layers.items() if stat.mean is not None}
        spread[model] = {name: stat.deviation for name, stat in layers.items() if stat.deviation is not None}
    of_pixels = [stat.mean for _, values in found if (stat := values.get(_INPUT)) and stat.mean is not None]
    same = len({round(value, 6) for value in of_pixels}) == 1  # other data have another line
    pixels, alt = of_pixels[0] if same else None, f"Bars of the {label} by layer"
    return drawn(probe_bars, alt, "The same as bars.", heights, pixels, spread, label)
