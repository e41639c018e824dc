"""Similarity of classes, compared between layers and configurations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ff.metrics import class_mean_rdm, compare_rdms
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Child, Column, Rows, element, table
from lightning_ff.report.representations import Representation
from lightning_ff.report.sections.base import chip
from lightning_ff.report.stored import same_classes

_MOST = 12
_CAPTION = (
    "How far these maps agree: Spearman's rank correlation of the dissimilarities of all pairs of classes, of the runs "
    "shown above."
)


def class_rdms(stored: Representation) -> dict[str, Tensor]:
    """Dissimilarity of the classes in every layer whose mean activities are stored, `(C, C)` by layer."""
    means = {name: stored.array(f"{name}/mean") for name in stored.layers}
    return {name: class_mean_rdm(torch.from_numpy(mean)) for name, mean in means.items() if mean is not None}


def agreement(groups: Sequence[Group]) -> list[Child]:
    """For configurations with the same classes a table of rank correlations of their maps, if it is small enough."""
    made: list[Child] = []
    for same in same_classes(groups):
        shown = [(group, stored) for group in same if (stored := group.shown.representation) is not None]
        rdms = [
            (element("span", chip(g), " ", name), rdm) for g, each in shown for name, rdm in class_rdms(each).items()
        ]
        if 1 < len(rdms) <= _MOST:
            columns = [Column(""), *(Column(head, 2) for head, _ in rdms)]
            rows: list[list[Cell]] = [[head, *(float(compare_rdms(x, y)) for _, y in rdms)] for head, x in rdms]
            made.append(table(columns, [Rows(rows)], _CAPTION))
    return made
