"""Sparsity of layers: from stored representations, or from logged values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lightning_ff.figures import RunPoint, accuracy_sparsity_scatter, class_bars
from lightning_ff.figures.base import Figure
from lightning_ff.report import measures, stored
from lightning_ff.report.drawing import drawn
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Child, Column, Markup
from lightning_ff.report.numbers import Stat
from lightning_ff.report.runs import Run
from lightning_ff.report.sections.base import Section
from lightning_ff.report.stored import layer_names, representations, samples_of, whose

_LOGGED = ("sparsity", "treves_rolls", "active_fraction", "dead_units")
_CLASSES = 30


def sparsity(groups: Sequence[Group]) -> Section | None:
    """A table of layers, sparsity by class, and accuracy against sparsity."""
    found = stored.measured(groups)
    logged = [group for group in groups if group not in found and _logged_layers(group)]

    def caption(groups: Sequence[Group]) -> str:
        runs = " Bars: mean over runs, lines: deviation." if any(len(group.runs) > 1 for group in groups) else ""
        return f"Hoyer sparsity of each layer by class, of {samples_of(groups)}.{runs}"

    bars = class_pictures(found, _CLASSES, "hoyer", "Hoyer sparsity", "Bars of Hoyer sparsity by class", caption)
    parts = [_table(found, logged), *bars, _scatter(found)]
    return Section("sparsity", "Sparsity of the layers", parts) if any(parts) else None


def _table(found: Sequence[Group], logged: Sequence[Group]) -> Child:
    groups = sorted([*found, *logged], key=lambda group: group.number)
    names = list(dict.fromkeys([*layer_names(found), *(name for group in logged for name in _logged_layers(group))]))
    columns = [Column("Units", 0), Column("Hoyer", 3), Column("Treves\u2013Rolls", 3), Column("Active, per cent", 1)]
    columns += [Column("Dead units", 1 if any(len(group.runs) > 1 for group in groups) else 0)]
    where = [f"mean over {samples_of(found)}"] if found else []
    if logged:
        letters = ", ".join(group.letter for group in logged)
        of = f"of {letters} " if found else ""
        where.append(f"{of}as logged, mean over all samples of the test or validation")
    caption = (
        f"Sparsity of each layer, {'; '.join(where)}. Hoyer and Treves\u2013Rolls: 1 where one unit is active, 0 where "
        "all are equally so. Active: share of units above 0. Dead: units that none of the samples made active. NaN: "
        "undefined, since no unit is active."
    )
    return stored.layer_table(groups, names, _cells, columns, [whose(groups), caption])


def _cells(group: Group, layer: str) -> list[Cell] | None:
    """Numbers of a layer as stored, or else as logged."""
    if representations(group):
        return stored.layer_cells(
            group,
            layer,
            lambda each: each.over_samples("hoyer"),
            lambda each: each.over_samples("treves_rolls"),
            lambda each: 100 * each.over_samples("active_fraction"),
            lambda each: each.dead_units,
        )
    values = [Stat.of(_logged_value(run, name, layer) for run in group.runs) for name in _LOGGED]
    if all(value.mean is None for value in values):
        return None
    return [None, *values[:2], values[2].times(100), values[3]]


def _logged_value(run: Run, name: str, layer: str) -> float | None:
    tested = measures.measured_value(run, f"test/{name}/{layer}")
    return measures.measured_value(run, f"val/{name}/{layer}") if tested is None else tested


def _logged_layers(group: Group) -> list[str]:
    return sorted({*measures.blocks([group], "test/sparsity/"), *measures.blocks([group], "val/sparsity/")})


def class_pictures(
    found: Sequence[Group], most: int, name: str, label: str, alt: str, caption: Callable[[Sequence[Group]], str]
) -> list[Markup | None]:
    """Bars by class, a picture for the configurations with the same classes, if these are not too many."""
    made = []
    for groups in stored.same_classes(found):
        classes = representations(groups[0])[0].classes
        if len(classes) <= most:
            made.append(drawn(bars, alt, [whose(groups), caption(groups)], groups, classes, name, label))
    return made


def bars(groups: Sequence[Group], classes: Sequence[str], name: str, label: str) -> Figure:
    """Bars of a number by class: mean and deviation over runs of each configuration."""
    values: dict[str, dict[str, np.ndarray]] = {}
    spread: dict[str, dict[str, np.ndarray]] = {}
    for group in groups:
        model = f"{group.letter} {group.name}"
        values[model], spread[model] = {}, {}
        for layer in layer_names([group]):
            numbers = [each.layers[layer].by_class(name) for each in representations(group) if layer in each.layers]
            stats = [Stat.of(of_class.tolist()) for of_class in np.transpose(numbers)]
            values[model][layer] = np.array([each.mean for each in stats], float)
            spread[model][layer] = np.array([each.deviation for each in stats], float)  # NaN for None: no error bar
    return class_bars(values, classes, label, spread)


def _scatter(found: Sequence[Group]) -> Markup | None:
    """Accuracy against sparsity, if there are enough runs."""
    points = []
    for group in found:
        for run in group.runs:
            tested = measures.of_test(run, "acc")
            accuracy = measures.validation(run, "acc") if tested is None else tested
            if run.representation is not None and accuracy is not None:
                layers = {name: layer.over_samples("hoyer") for name, layer in run.representation.layers.items()}
                points.append(RunPoint(f"{group.letter} {group.name}", accuracy, layers))
    if len(points) < 3:
        return None
    text = "Accuracy of every run, in its test or else its last validation, against the sparsity of its layers, over"
    return drawn(accuracy_sparsity_scatter, "Accuracy against sparsity", f"{text} {samples_of(found)}.", points)
