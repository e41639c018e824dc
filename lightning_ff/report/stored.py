"""Stored representations of several configurations, their definitions, and values over runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Child, Rows
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


def measured(groups: Sequence[Group]) -> list[Group]:
    """Configurations with stored representations of at least one run."""
    return [group for group in groups if group.shown.representation is not None]


def representations(group: Group) -> list[Representation]:
    """Representations of all its runs that stored them."""
    return [run.representation for run in group.runs if run.representation is not None]


def layer_names(groups: Sequence[Group]) -> list[str]:
    """Names of layers in their order."""
    return list(dict.fromkeys(name for group in groups for each in representations(group) for name in each.layers))


def samples_of(groups: Sequence[Group]) -> str:
    """Stage and samples of the measurement."""
    found = [each for group in groups for each in representations(group)]
    return either(
        f"{_SAMPLES.get(each.samples, 'samples')} of the {STAGES.get(each.stage, each.stage)}" for each in found
    )


def definition_of(groups: Sequence[Group]) -> str:
    """Definition of the ensembles."""
    return either(each.definition or "that was not stored" for group in groups for each in representations(group))


def explained(groups: Sequence[Group]) -> str:
    """Descriptions of the known definitions."""
    kinds = dict.fromkeys(each.definition.partition(" ")[0] for group in groups for each in representations(group))
    return "".join(f" {kind}: {_DEFINITIONS[kind]}." for kind in kinds if kind in _DEFINITIONS)


def either(said: Iterable[str]) -> str:
    """One text for all, or one per group of configurations."""
    return " or ".join(dict.fromkeys(said))


def over_runs(group: Group, layer: str, value: Callable[[Layer], float]) -> Stat:
    """A value of a layer over the runs of a configuration."""
    stored = [None if run.representation is None else run.representation.layers.get(layer) for run in group.runs]
    return Stat.of(None if each is None else value(each) for each in stored)


def whose(groups: Sequence[Group]) -> list[Child]:
    """The configuration of a table or picture, if it is of a single one."""
    return [named(groups[0]), ": "] if len(groups) == 1 else []


def by_layer(
    groups: Sequence[Group], names: Sequence[str], cells: Callable[[Group, str], list[Cell] | None]
) -> list[Rows]:
    """Layers as rows; with several configurations, a part for each layer with configurations as rows."""
    made = {(name, group.number): cells(group, name) for name in names for group in groups}
    if len(groups) == 1:
        return [Rows([[name, *found] for name in names if (found := made[name, groups[0].number]) is not None])]
    return [
        Rows([[named(group), *row] for group in groups if (row := made[name, group.number]) is not None], name)
        for name in names
    ]


def same_classes(groups: Sequence[Group]) -> list[list[Group]]:
    """Configurations by the names of their classes: only those with equal classes can be compared in one picture."""
    found: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        found.setdefault(tuple(representations(group)[0].classes), []).append(group)
    return list(found.values())
