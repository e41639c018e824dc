"""Units that respond to each class, and their overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lightning_ff.figures import growth, sharing_map
from lightning_ff.metrics import shared_units
from lightning_ff.report import stored
from lightning_ff.report.drawing import drawn
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Child, Column, Markup, Rows, element, folded, table
from lightning_ff.report.sections.base import Section, chip, named
from lightning_ff.report.sections.sparsity import class_pictures
from lightning_ff.report.sections.unseen import unseen
from lightning_ff.report.stored import definition_of, layer_names, representations

_FOLDED_FROM = 26


def ensembles(groups: Sequence[Group]) -> Section | None:
    """A table of layers, sizes by class, shared units, growth over training."""
    found = stored.measured(groups)
    if not found:
        return None

    def caption(groups: Sequence[Group]) -> str:
        return f"Units in the ensemble of each class by the definition {definition_of(groups)}."

    alt, most = "Bars of the sizes of ensembles by class", _FOLDED_FROM - 1
    bars = class_pictures(found, most, "size", "units in the ensemble", alt, caption)
    parts = [_table(found), *unseen(found), *bars, _sizes(found), *_sharing(found), *_growth(found)]
    return Section("ensembles", "Ensembles of the classes", parts)


def _table(found: Sequence[Group]) -> Markup | None:
    columns = [Column("Units", 0), Column("Mean size", 1), Column("Smallest", 1), Column("Largest", 1)]
    columns += [Column("Mean size, per cent", 1), Column("Mean Jaccard", 3)]
    columns += [Column("In two or more", 1), Column("In none", 1)]
    caption = (
        f"Ensembles of the classes by the definition {definition_of(found)}, over {stored.samples_of(found)}."
        f"{stored.explained(found)} Size: units in the ensemble of a class. Mean Jaccard: units in both of two "
        "ensembles over units in either, mean over all pairs of classes, pairs of empty ensembles left out. The last "
        "two columns count units by how many ensembles they are in."
    )
    return stored.layer_table(found, layer_names(found), _cells, columns, [stored.whose(found), caption])


def _cells(group: Group, layer: str) -> list[Cell] | None:
    return stored.layer_cells(
        group,
        layer,
        lambda each: each.mean_size,
        lambda each: float(each.sizes[each.seen].min(initial=each.units)),
        lambda each: float(each.sizes[each.seen].max(initial=0)),
        lambda each: 100 * each.mean_size / each.units,
        lambda each: each.mean_jaccard,
        lambda each: float((each.order > 1).sum()),
        lambda each: float((each.order == 0).sum()),
    )


def _sizes(found: Sequence[Group]) -> Child:
    """For each layer a folded table of sizes by class."""
    made = []
    for layer in layer_names(found):
        having = [group for group in found if any(layer in each.layers for each in representations(group))]
        first = dict.fromkeys(name for group in having for name in representations(group)[0].classes)
        decimals = 1 if any(len(representations(group)) > 1 for group in having) else 0
        columns = [Column("Class"), *(Column(chip(group), decimals) for group in having)]
        rows: list[list[Cell]] = [[name, *(_size(group, layer, name) for group in having)] for name in first]
        made.append(table(columns, [Rows(rows)], f"{layer}: units in the ensemble of each class."))
    long = max(len(representations(group)[0].classes) for group in found) >= _FOLDED_FROM
    return folded("Sizes by class as numbers", element("div", made, class_="beside tables"), printed=not long)


def _size(group: Group, layer: str, name: str) -> Cell:
    return stored.of_class(group, name, lambda each: each.layers[layer].sizes if layer in each.layers else None)


def _sharing(found: Sequence[Group]) -> list[Child]:
    """Maps of shared units, one for each layer of each configuration, means over its runs."""
    made: list[Child] = []
    for group in found:
        classes = representations(group)[0].classes
        if len(classes) >= _FOLDED_FROM * 2:
            continue
        same = [each for each in representations(group) if each.classes == classes]
        maps = []
        for layer in layer_names([group]):
            members = [torch.from_numpy(each.layers[layer].members) for each in same]
            counts = np.mean([shared_units(each).numpy() for each in members], axis=0)
            alt = f"Units shared by ensembles of {layer}, {group.name}"
            maps.append(drawn(sharing_map, alt, None, counts, classes, layer))
        runs = f", mean over {len(same)} runs" if len(same) > 1 else ""
        caption = [named(group), f": units that two ensembles share{runs}; in brackets the size of each. Blank: none."]
        made.append(element("figure", element("div", maps, class_="beside"), element("figcaption", caption)))
    return made


def _growth(found: Sequence[Group]) -> list[Markup | None]:
    """Sizes over training, if validations were stored."""
    made = []
    for group in found:
        grown = group.shown.growth()
        if len(grown) < 2:
            continue
        last = [*grown.values()][-1]
        sizes = {
            layer: np.array([each.layers[layer].sizes for each in grown.values()])
            for layer in last.layers
            if all(layer in each.layers and each.classes == last.classes for each in grown.values())
        }
        runs = f" of {group.shown.folder}" if len(group.runs) > 1 else ""
        text = f": sizes of the ensembles over training{runs}, at validations ({definition_of([group])})."
        alt = "Sizes of ensembles over training"
        made.append(drawn(growth, alt, [named(group), text], sizes, last.classes, [*grown]))
    return made
