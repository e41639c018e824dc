"""Classes that were held out of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_ff.metrics import chance_jaccard, jaccard, null_jaccard
from lightning_ff.report.grouping import Group
from lightning_ff.report.html import Cell, Child, Column
from lightning_ff.report.numbers import Stat
from lightning_ff.report.representations import Representation
from lightning_ff.report.sections.base import named, paragraph
from lightning_ff.report.stored import layer_names, layer_table, representations

_SIMILAR, _SHARE, _PERMUTATIONS = 3, 0.1, 20
_CAPTION = (
    "The ensemble of a class held out of training: its size, and the mean of its Jaccard indices with the classes that "
    f"its images are taken for most often ({_SIMILAR} at most, in a tenth of the cases each) and with the others. By "
    "chance: expected of ensembles of these sizes drawn at random, over all classes. Shuffled: mean index where the "
    f"classes of the stored samples are shuffled, {_PERMUTATIONS} times; that is high, since all shuffled classes have "
    "the same mean."
)


def unseen(found: Sequence[Group]) -> list[Child]:
    """Names of these classes, and a table of their ensembles."""
    held = [(group, description) for group in found if (description := _description(group))]
    groups = [group for group, _ in held]
    columns = [Column("Class"), Column("Size", 1), Column("Size, per cent", 1)]
    columns += [Column(head, 3) for head in ("Similar", "Others", "By chance", "Shuffled")]
    shown = layer_table(groups, layer_names(groups), _cells, columns, _CAPTION)
    return [*(paragraph(named(group), description) for group, description in held), shown]


def _held_out(stored: Representation) -> list[int]:
    return np.flatnonzero(~stored.seen).tolist()


def _description(group: Group) -> str:
    stored = representations(group)[0]
    if not (held := _held_out(stored)):
        return ""
    names = ", ".join(stored.classes[c] for c in held)
    policy = f" (label given to their images: {stored.label_policy})" if stored.label_policy else ""
    taken = "".join(
        f" Images of {stored.classes[c]} are most often taken for {', '.join(stored.classes[d] for d in similar)}."
        for c in held
        if (similar := _similar(stored, c))
    )
    return f": held out of training: {names}{policy}. Means in other tables are those of the other classes.{taken}"


def _similar(stored: Representation, held_out: int) -> list[int]:
    """Classes that many images of a class are predicted as; empty if not stored."""
    confusion = stored.array("confusion")
    if confusion is None:
        return []
    row = np.where(stored.seen, confusion[held_out], 0)
    return [int(d) for d in np.argsort(-row, kind="stable")[:_SIMILAR] if row[d] >= _SHARE * confusion[held_out].sum()]


def _cells(group: Group, layer: str) -> list[Cell] | None:
    """Means over held-out classes, then over runs."""
    having = [each for each in representations(group) if layer in each.layers and _held_out(each)]
    if not having:
        return None
    numbers = [np.mean([_numbers(each, layer, c) for c in _held_out(each)], axis=0) for each in having]
    names = ", ".join(having[0].classes[c] for c in _held_out(having[0]))
    return [names, *(Stat.of(map(float, values)) for values in zip(*numbers, strict=True))]


def _numbers(stored: Representation, layer: str, held_out: int) -> list[float]:
    members = torch.from_numpy(stored.layers[layer].members)
    similar = torch.zeros(len(members), dtype=torch.bool)
    similar[_similar(stored, held_out)] = True
    seen = torch.from_numpy(stored.seen)
    index, chance, shuffled = jaccard(members)[held_out], chance_jaccard(members)[held_out], _null(stored, layer)
    size = float(members[held_out].sum())
    of_null = torch.nan if shuffled is None else float(shuffled[held_out][seen].nanmean())
    means = [float(values.nanmean()) for values in (index[seen & similar], index[seen & ~similar], chance[seen])]
    return [size, 100 * size / members.shape[1], *means, of_null]


def _null(stored: Representation, layer: str) -> Tensor | None:
    """Mean Jaccard indices with shuffled classes of stored samples."""
    label, h = stored.array("label"), stored.array(f"{layer}/activations")
    kind, _, parameter = stored.definition.partition(" k=")
    if label is None or h is None or not len(label) or kind != "leave_one_out" or not parameter:
        return None
    samples = torch.from_numpy(h), torch.from_numpy(label.astype(np.int64))
    return null_jaccard(*samples, len(stored.classes), float(parameter), _PERMUTATIONS).nanmean(0)
