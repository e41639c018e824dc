"""Sparsity of layers: from stored representations, or from logged values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lightning_ff.figures import RunPoint, accuracy_sparsity_scatter, class_bars
from lightning_ff.report import measures
from lightning_ff.report.drawing import drawn
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Child, Column, Markup, table
from lightning_ff.report.numbers import Stat
from lightning_ff.report.runs import Run
from lightning_ff.report.sections.base import Section
from lightning_ff.report.stored import (
    by_layer,
    layer_names,
    measured,
    over_runs,
    representations,
    same_classes,
    samples_of,
    whose,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOGGED = ("sparsity", "treves_rolls", "active_fraction", "dead_units")
_CLASSES = 30


def sparsity(groups: Sequence[Group]) -> Section | None:
    """A table of layers, sparsity by class, and accuracy against sparsity."""
    found = measured(groups)
    logged = [group for group in groups if group not in found and _logged_layers(group)]
    parts = [_table(found, logged), *_by_class(found), _scatter(found)]
    return Section("sparsity", "Sparsity of the layers", parts) if any(parts) else None


def _table(found: Sequence[Group], logged: Sequence[Group]) -> Child:
    groups = sorted([*found, *logged], key=lambda group: group.number)
    if not groups:
        return None
    names = list(dict.fromkeys([*layer_names(found), *(name for group in logged for name in _logged_layers(group))]))
    several = any(len(group.runs) > 1 for group in groups)
    columns = [Column("Layer" if len(groups) == 1 else "Layer, configuration"), Column("Units", 0)]
    columns += [Column("Hoyer", 3), Column("Treves\u2013Rolls", 3), Column("Active, per cent", 1)]
    columns += [Column("Dead units", 1 if several else 0)]
    rows = by_layer(groups, names, lambda group, name: (_stored if group in found else _logged)(group, name))
    return table(columns, rows, [whose(groups), _caption(found, logged)])


def _caption(found: Sequence[Group], logged: Sequence[Group]) -> str:
    where = []
    if found:
        where.append(f"mean over {samples_of(found)}")
    if logged:
        letters = ", ".join(group.letter for group in logged)
        where.append(f"{f'of {letters} ' if found else ''}as logged, mean over all samples of the test or validation")
    return (
        f"Sparsity of each layer, {'; '.join(where)}. Hoyer and Treves\u2013Rolls: 1 where one unit is active, 0 where "
        "all are equally so. Active: share of units above 0. Dead: units that none of the samples made active. NaN: "
        "undefined, since no unit is active."
    )


def _stored(group: Group, layer: str) -> list[Cell] | None:
    stored = [each.layers[layer] for each in representations(group) if layer in each.layers]
    if not stored:
        return None
    hoyer, treves_rolls, active = (
        over_runs(group, layer, lambda each, name=name: each.over_samples(name))  # type: ignore[misc]
        for name in ("hoyer", "treves_rolls", "active_fraction")
    )
    dead = over_runs(group, layer, lambda each: each.dead_units)
    return [float(stored[0].units), hoyer, treves_rolls, active.times(100), dead]


def _logged(group: Group, layer: str) -> list[Cell] | None:
    values = [Stat.of(_logged_value(run, name, layer) for run in group.runs) for name in _LOGGED]
    if all(value.mean is None for value in values):
        return None
    return [None, *values[:2], values[2].times(100), values[3]]


def _logged_value(run: Run, name: str, layer: str) -> float | None:
    tested = measures.measured_value(run, f"test/{name}/{layer}")
    return measures.measured_value(run, f"val/{name}/{layer}") if tested is None else tested


def _logged_layers(group: Group) -> list[str]:
    return sorted({*measures.blocks([group], "test/sparsity/"), *measures.blocks([group], "val/sparsity/")})


def _by_class(found: Sequence[Group]) -> list[Markup | None]:
    """Bars of Hoyer sparsity by class, for configurations with the same classes."""
    made: list[Markup | None] = []
    for groups in same_classes(found):
        classes = representations(groups[0])[0].classes
        if len(classes) > _CLASSES:
            continue
        runs = " Bars: mean over runs, lines: deviation." if any(len(group.runs) > 1 for group in groups) else ""
        caption = [whose(groups), f"Hoyer sparsity of each layer by class, of {samples_of(groups)}.{runs}"]
        make = partial(bars, groups, classes, "hoyer", "Hoyer sparsity")
        made.append(drawn(make, "Bars of Hoyer sparsity by class", caption))
    return made


def bars(groups: Sequence[Group], classes: Sequence[str], name: str, label: str) -> Figure:
    """Bars of a number by class: mean and deviation over runs of each configuration."""
    values: dict[str, dict[str, np.ndarray]] = {}
    spread: dict[str, dict[str, np.ndarray]] = {}
    for group in groups:
        model = f"{group.letter} {group.name}"
        values[model], deviations = {}, {}
        for layer in layer_names([group]):
            stored = [each.layers[layer] for each in representations(group) if layer in each.layers]
            stats = [Stat.of(float(each.by_class(name)[c]) for each in stored) for c in range(len(classes))]
            values[model][layer] = np.array([np.nan if each.mean is None else each.mean for each in stats])
            deviations[layer] = np.array([np.nan if each.deviation is None else each.deviation for each in stats])
        if len(representations(group)) > 1:
            spread[model] = deviations
    return class_bars(values, classes, label, spread or None)


def _scatter(found: Sequence[Group]) -> Markup | None:
    """Accuracy against sparsity, if there are enough runs."""
    points = [
        RunPoint(f"{group.letter} {group.name}", accuracy, {
            name: layer.over_samples("hoyer") for name, layer in run.representation.layers.items()})
        for group in found
        for run in group.runs
        if run.representation is not None and (accuracy := _accuracy(run)) is not None
    ]  # fmt: skip
    if len(points) < 3:
        return None
    caption = (
        "Accuracy of every run, in its test or else its last validation, against the sparsity of its layers, over "
        f"{samples_of(found)}."
    )
    return drawn(partial(accuracy_sparsity_scatter, points), "Accuracy against sparsity", caption)


def _accuracy(run: Run) -> float | None:
    tested = measures.of_test(run, "acc")
    return measures.validation(run, "acc") if tested is None else tested
