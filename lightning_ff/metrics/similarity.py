"""Representational similarity: dissimilarity matrices (RDMs) of activations, and their correlation.

Shapes: N samples, U units, C classes. arXiv 2305.18353 uses such a measure without giving its formula: these follow
representational similarity analysis (Kriegeskorte et al. 2008).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ff.hashing import hash_bits
from lightning_ff.validate import check_int


def class_mean_rdm(mean: Tensor) -> Tensor:
    """Dissimilarity of classes: 1 minus Pearson's correlation, over units, of their mean activations.

    Args:
        mean: Mean activity of every unit on each class `(C, U)`.

    Returns:
        Symmetric matrix `(C, C)` in 0 to 2, float64. Rows and columns of classes whose units all have the same mean
        (none active, a single unit), and of classes without samples, are NaN, including the diagonal.

    Raises:
        ValueError: `mean` is not a matrix.

    Example::

        >>> mean = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
        >>> class_mean_rdm(mean).round(decimals=4)
        tensor([[0., 0., 2., nan],
                [0., 0., 2., nan],
                [2., 2., 0., nan],
                [nan, nan, nan, nan]], dtype=torch.float64)
    """
    if mean.ndim != 2:
        raise ValueError(f"mean of shape {tuple(mean.shape)}: give one row of units per class, (C, U)")
    return _dissimilarity(mean)


def sample_rdm(h: Tensor) -> Tensor:
    """Dissimilarity of samples: 1 minus Pearson's correlation of their activations.

    It needs 8 N^2 bytes: select samples with :func:`balanced_indices`.

    Args:
        h: Activations, or images, `(N, ...)`.

    Returns:
        Symmetric matrix `(N, N)` in 0 to 2, float64. Rows and columns of samples whose units are all equally active,
        such as not at all, are NaN.

    Example::

        >>> sample_rdm(torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]))
        tensor([[0.0000, 1.3333],
                [1.3333, 0.0000]], dtype=torch.float64)
    """
    return _dissimilarity(h.flatten(1))


def _dissimilarity(rows: Tensor) -> Tensor:
    wide = rows.detach().double()
    flat = wide.amax(1) == wide.amin(1) if wide.numel() else wide.new_ones(len(wide), dtype=torch.bool)
    centred = wide - wide.mean(1, keepdim=True)
    unit = centred / torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    unit[flat] = torch.nan  # else rounding of the mean would count as variance
    matrix = (1 - unit @ unit.T).clamp(0, 2)
    own = matrix.diagonal()
    own[~own.isnan()] = 0
    return matrix


def compare_rdms(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of two dissimilarity matrices, over the pairs above the diagonal.

    Ties get their average rank. A pair that is NaN in either matrix is left out of both.

    Args:
        a: Symmetric matrix `(N, N)`.
        b: Another of the same samples or classes `(N, N)`.

    Returns:
        Correlation in -1 to 1, a float64 scalar; NaN if all remaining pairs of one matrix are equal, or fewer than two
        remain.

    Raises:
        ValueError: they are not square, or differ in size.

    Example::

        >>> a = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]])
        >>> b = torch.tensor([[0.0, 0.1, 0.9], [0.1, 0.0, 0.5], [0.9, 0.5, 0.0]])
        >>> compare_rdms(a, b)
        tensor(0.5000, dtype=torch.float64)
    """
    if a.shape != b.shape or a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ValueError(f"matrices of shapes {tuple(a.shape)} and {tuple(b.shape)}: give two of the same shape (N, N)")
    b = b.to(a.device)
    above = torch.triu(torch.ones_like(a, dtype=torch.bool), diagonal=1)
    above &= ~(a.isnan() | b.isnan())
    ranks = torch.stack([_ranks(a[above]), _ranks(b[above])])
    offset = ranks - ranks.mean(1, keepdim=True)
    squares = offset.square().sum(1)
    return (offset[0] * offset[1]).sum() / (squares[0] * squares[1]).sqrt()


def _ranks(values: Tensor) -> Tensor:
    """Rank of each value from 1; ties get their average rank."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2).double()[inverse]


def balanced_indices(label: Tensor, per_class: int, index: Tensor, seed: int = 0) -> Tensor:
    """Indices of at most N samples of each class, always the same samples of a data set.

    Samples are selected by a hash of their index and the seed, independent of their order and distribution over
    processes: a selection from the concatenated selections of several processes equals that of one process. A duplicate
    sample, such as the padding of a distributed sampler, is kept once.

    Args:
        label: Classes `(N,)`.
        per_class: Largest number of samples of a class.
        index: Indices of the samples in the data set `(N,)`, int64.
        seed: Seed of the selection.

    Returns:
        Indices into `label`, int64, ordered by class and then by index.

    Raises:
        ValueError: `per_class` is below 1, or the shapes differ.

    Example::

        >>> label, index = torch.tensor([1, 0, 1, 0, 1]), torch.tensor([40, 30, 10, 20, 0])
        >>> kept = balanced_indices(label, per_class=2, index=index)
        >>> label[kept].tolist(), index[kept].tolist()
        ([0, 0, 1, 1], [20, 30, 10, 40])
    """
    check_int("per_class", per_class)
    if per_class < 1:
        raise ValueError(f"per_class={per_class}: keep at least 1 sample of each class")
    if label.ndim != 1 or label.shape != index.shape:
        raise ValueError(
            f"label of shape {tuple(label.shape)} and index of shape {tuple(index.shape)}: give both as (N,)"
        )
    index = index.to(label.device, torch.int64)
    order = _sorted_by(label, hash_bits(index, seed, 0), index)
    duplicate = (label[order].diff() == 0) & (index[order].diff() == 0)
    order = order[torch.cat([duplicate.new_zeros(min(len(order), 1)), duplicate]).logical_not()]
    counts = label[order].unique_consecutive(return_counts=True)[1]
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    kept = order[torch.arange(len(order), device=order.device) - starts < per_class]
    return kept[_sorted_by(label[kept], index[kept])]


def _sorted_by(*keys: Tensor) -> Tensor:
    """Order by the first key, ties by the second, and so on."""
    order = torch.arange(len(keys[0]), device=keys[0].device)
    for key in reversed(keys):
        order = order[key[order].argsort(stable=True)]
    return order
