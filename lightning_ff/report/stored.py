"""Stored representations of several configurations, their definitions, and values over runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np

from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Child, Column, Markup, Rows, table
from lightning_ff.report.numbers import Stat
from lightning_ff.report.representations import Layer, Representation
from lightning_ff.report.sections.base import named

_SAMPLES = {"correct": "the correctly classified samples", "all": "all samples"}
_DEFINITIONS = {
    "leave_one_out": "units whose mean activity on the class is more than 1 + k times the mean of all other units",
    "quantile_median": "units whose median activity on the class is above this quantile of all activities on it",
    "kolmogorov_smirnov": "units whose activities on the class differ from other units', by the mean p-value",
}
STAGES = {"test": "test", "validate": "validation", "val": "validation"}
Cells: TypeAlias = Callable[[Group, str], list[Cell] | None]


def measured(groups: Sequence[Group]) -> list[Group]:
    """Configurations with stored representations of at least one run."""
    return [group for group in groups if group.shown.representation is not None]


def representations(*groups: Group) -> list[Representation]:
    """Representations of all runs that stored them."""
    return [stored for group in groups for run in group.runs if (stored := run.representation) is not None]


def layer_names(groups: Sequence[Group]) -> list[str]:
    """Names of layers in their order."""
    return list(dict.fromkeys(name for each in representations(*groups) for name in each.layers))


def samples_of(groups: Sequence[Group]) -> str:
    """Stage and samples of the measurement."""
    stored = [(_SAMPLES.get(each.samples, "samples"), each.stage) for each in representations(*groups)]
    return either(f"{samples} of the {STAGES.get(stage, stage)}" for samples, stage in stored)


def definition_of(groups: Sequence[Group]) -> str:
    """Definition of the ensembles."""
    return either(each.definition or "that was not stored" for each in representations(*groups))


def explained(groups: Sequence[Group]) -> str:
    """Descriptions of the known definitions."""
    kinds = dict.fromkeys(each.definition.partition(" ")[0] for each in representations(*groups))
    return "".join(f" {kind}: {_DEFINITIONS[kind]}." for kind in kinds if kind in _DEFINITIONS)


def either(said: Iterable[str]) -> str:
    """One text for all, or one per group of configurations."""
    return " or ".join(dict.fromkeys(said))


def over_runs(group: Group, layer: str, value: Callable[[Layer], float]) -> Stat:
    """A value of a layer over the runs of a configuration."""
    stored = [None if run.representation is None else run.representation.layers.get(layer) for run in group.runs]
    return Stat.of(None if each is None else value(each) for each in stored)


def layer_cells(group: Group, layer: str, *values: Callable[[Layer], float]) -> list[Cell] | None:
    """Number of units of a layer, and values over the runs; None if no run has stored it."""
    units = [each.layers[layer].units for each in representations(group) if layer in each.layers]
    return [float(units[0]), *(over_runs(group, layer, value) for value in values)] if units else None


def of_class(group: Group, name: str, value: Callable[[Representation], np.ndarray | None]) -> Stat:
    """The entry of a class in values `(C,)`, over the runs of a configuration."""
    entries: list[float | None] = []
    for stored in [run.representation for run in group.runs]:
        values = None if stored is None or name not in stored.classes else value(stored)
        entries.append(None if stored is None or values is None else float(values[stored.classes.index(name)]))
    return Stat.of(entries)


def whose(groups: Sequence[Group]) -> list[Child]:
    """The configuration of a table or picture, if it is of a single one."""
    return [named(groups[0]), ": "] if len(groups) == 1 else []


def by_layer(groups: Sequence[Group], names: Sequence[str], cells: Cells) -> list[Rows]:
    """Layers as rows; with several configurations, a part for each layer with configurations as rows."""
    made = {(name, group.number): row for name in names for group in groups if (row := cells(group, name)) is not None}
    if len(groups) == 1:
        return [Rows([[name, *row] for (name, _), row in made.items()])] if made else []
    rows = [[[named(g), *made[name, g.number]] for g in groups if (name, g.number) in made] for name in names]
    return [Rows(row, name) for name, row in zip(names, rows, strict=True) if row]


def layer_table(
    groups: Sequence[Group], names: Sequence[str], cells: Cells, columns: Sequence[Column], caption: Child
) -> Markup | None:
    """A table of :func:`by_layer`; None if it has no row."""
    parts = by_layer(groups, names, cells)
    head = Column("Layer" if len(groups) == 1 else "Layer, configuration")
    return table([head, *columns], parts, caption) if parts else None


def same_classes(groups: Sequence[Group]) -> list[list[Group]]:
    """Configurations by the names of their classes: only those with equal classes can be compared in one picture."""
    found: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        found.setdefault(tuple(representations(group)[0].classes), []).append(group)
    return list(found.values())
