"""Seeded stratified splits of a training set.

Shapes: n labels, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def proportional(counts: Tensor, size: int) -> Tensor:
    """Divide ``size`` among the classes in proportion to ``counts``, by largest remainder.

    Args:
        counts: Samples of each class, shape ``(C,)``.
        size: Number to divide, at most the sum of ``counts``.

    Returns:
        Number for each class, int64, shape ``(C,)``; they add up to ``size``.

    >>> proportional(torch.tensor([50, 30, 21]), 10)
    tensor([5, 3, 2])
    """
    share = counts * size
    total = int(counts.sum())
    quota = share // total
    rest = size - int(quota.sum())
    most = (share % total).argsort(descending=True, stable=True)[:rest]
    quota[most] += 1
    return quota


def draw_per_class(labels: Tensor, quota: Tensor, generator: torch.Generator) -> Tensor:
    """Draw ``quota[c]`` samples of each class ``c``; with the same seed a larger quota includes the smaller one's.

    Args:
        labels: Class numbers, shape ``(n,)``.
        quota: Number of samples of each class, shape ``(C,)``.
        generator: Random number generator.

    Returns:
        Drawn indices, ascending, int64.

    >>> draw_per_class(torch.tensor([0, 1, 0, 1]), torch.tensor([2, 0]), torch.Generator())
    tensor([0, 2])
    """
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]  # class after class, each in a random order
    counts = labels.bincount(minlength=len(quota))
    start = counts.cumsum(0) - counts
    rank = torch.arange(len(labels)) - start.repeat_interleave(counts)
    return order[rank < quota.repeat_interleave(counts)].sort().values


def without(n: int, taken: Tensor) -> Tensor:
    """Return the indices of ``range(n)`` that are not in ``taken``, ascending."""
    kept = torch.ones(n, dtype=torch.bool)
    kept[taken] = False
    return kept.nonzero().squeeze(1)
