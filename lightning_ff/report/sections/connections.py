"""Connections between ensembles of consecutive layers, and inhibition of other units."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from lightning_ff.metrics import ensemble_connectivity, excitation_inhibition, inhibition_ratio, weight_statistics
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Column, Markup
from lightning_ff.report.numbers import Stat
from lightning_ff.report.representations import Representation
from lightning_ff.report.stored import layer_table, measured, representations, whose

_CAPTION = (
    "Weights from one layer to the next. Negative: share of the weights. Own, other: mean weight between ensembles of "
    "the same class and of two classes. Members, others: what inhibits a unit over what excites it, summed over the "
    "units in the ensemble of a class and over all others, on the class's mean activity; mean over the classes where "
    "anything excites them."
)


def connections(groups: Sequence[Group]) -> Markup | None:
    """A table by later layer, of configurations that stored weights of layers that follow each other."""
    found = {group.number: [_numbers(each) for each in representations(group)] for group in measured(groups)}
    shown = [group for group in measured(groups) if any(found[group.number])]
    names = list(dict.fromkeys(name for group in shown for each in found[group.number] for name in each))

    def cells(group: Group, name: str) -> list[Cell] | None:
        rows = [each[name] for each in found[group.number] if name in each]
        stats = [Stat.of(values) for values in zip(*rows, strict=True)]
        return [stats[0].times(100), *stats[1:]] if stats else None

    columns = [Column("Negative, per cent", 1), Column("Own", 4), Column("Other", 4)]
    columns += [Column("Members", 2), Column("Others", 2)]
    return layer_table(shown, names, cells, columns, [whose(shown), _CAPTION])


def _numbers(stored: Representation) -> dict[str, list[float]]:
    """Negative share, mean weight between own and other ensembles, inhibition ratio of members and others, by layer."""
    found = {}
    for before, after in pairwise(stored.layers.values()):
        weight, mean = stored.array(f"{after.name}/weight"), stored.array(f"{before.name}/mean")
        if weight is None or mean is None or weight.shape != (after.units, before.units):
            continue
        w, members = torch.from_numpy(weight), torch.from_numpy(after.members)
        between = ensemble_connectivity(w, torch.from_numpy(before.members), members)
        own = torch.eye(len(between), dtype=torch.bool)
        x = torch.from_numpy(mean).nan_to_num(0.0)
        ratios = [torch.tensor(torch.nan)] * 2
        if not bool((x < 0).any()):  # the sign of a weight has no meaning for activities of both signs
            ratios = [_mean(ratio) for ratio in inhibition_ratio(*excitation_inhibition(w, x), members)]
        values = [weight_statistics(w)["negative"], _mean(between[own]), _mean(between[~own]), *ratios]
        found[after.name] = [float(value) for value in values]
    return found


def _mean(values: torch.Tensor) -> torch.Tensor:
    return values[values.isfinite()].mean()
