"""Overlap of ensembles under null hypotheses.

Shapes: N samples, U units, C classes, P permutations. Both are defined here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ff.metrics.ensembles import ensemble_sizes, jaccard, leave_one_out_ensemble
from lightning_ff.validate import check_int


def null_jaccard(
    h: Tensor, label: Tensor, classes: int | None = None, k: float = 1.0, permutations: int = 100, seed: int = 0
) -> Tensor:
    """Jaccard matrices of the ensembles of permuted classes: the same activations, their labels shuffled.

    Classes keep their sizes; ensembles are those of :func:`leave_one_out_ensemble`. Shuffled classes all have nearly
    the mean of all samples, and so nearly the same ensemble, so the overlap is high: an overlap below its lower
    quantile means that the classes have different units. For random ensembles of the same size, see
    :func:`chance_jaccard`.

    Args:
        h: Activations `(N, U)`.
        label: Classes `(N,)`. Permutations depend on the order of the samples: a fixed order, such as that of
            :func:`balanced_indices`, makes them reproducible.
        classes: C; None is the highest label plus 1.
        k: See :func:`leave_one_out_ensemble`.
        permutations: P.
        seed: Seed of the permutations, the same on every device.

    Returns:
        Jaccard matrices `(P, C, C)`, NaN where both ensembles are empty, such as for classes without samples. Use
        `.nanmean(0)` or `.nanquantile(0.05, 0)`.

    Raises:
        ValueError: there are fewer than one permutation, the shapes do not fit, or a label is not below `classes`.

    Example::

        >>> h, label = torch.tensor([0.0, 1.0, 1.0, 6.0]).repeat(6, 1), torch.tensor([0, 0, 1, 1, 1, 1])
        >>> null_jaccard(h, label, permutations=3).nanmean(0)  # samples that are all alike
        tensor([[1., 1.],
                [1., 1.]])
    """
    check_int("permutations", permutations)
    if permutations < 1:
        raise ValueError(f"permutations={permutations}: draw at least 1")
    if h.ndim != 2 or label.shape != h.shape[:1]:
        raise ValueError(f"h of shape {tuple(h.shape)} and label of shape {tuple(label.shape)}: give (N, U) and (N,)")
    highest = int(label.max()) if len(label) else -1
    classes = highest + 1 if classes is None else classes
    if highest >= classes:
        raise ValueError(f"label has {highest} in it: classes={classes} takes labels from 0 to {classes - 1}")
    generator = torch.Generator().manual_seed(seed)
    wide = h.detach().double()
    counts = torch.bincount(label, minlength=classes)[:, None]
    found = []
    for _ in range(permutations):
        order = torch.randperm(len(label), generator=generator).to(label.device)
        total = wide.new_zeros(classes, h.shape[1]).index_add_(0, label[order], wide)
        found.append(jaccard(leave_one_out_ensemble(total / counts, k)))
    return torch.stack(found)


def chance_jaccard(members: Tensor) -> Tensor:
    """Expected Jaccard index of two ensembles with randomly drawn units, of the given sizes.

    The number of shared units has a hypergeometric distribution, so the expectation is exact.

    Args:
        members: Membership `(C, U)`, bool.

    Returns:
        Matrix `(C, C)`, float64, NaN where both ensembles are empty. The diagonal is that of two independent draws.

    Example::

        >>> members = torch.tensor([[True, True, False, False], [False, True, True, False]])
        >>> chance_jaccard(members)[0, 1]  # 0, 1 or 2 shared with probability 1/6, 4/6, 1/6
        tensor(0.3889, dtype=torch.float64)
    """
    from scipy.stats import hypergeom  # type: ignore[import-untyped]

    units = members.shape[1]
    size = ensemble_sizes(members).cpu()
    one, other = size[:, None, None], size[None, :, None]
    shared = torch.arange(int(size.max()) + 1)
    chance = torch.from_numpy(hypergeom.pmf(shared, units, one, other))
    share = torch.where(shared <= torch.minimum(one, other), shared.double() / (one + other - shared), 0.0)
    expected = (chance * share).sum(2)
    return expected.masked_fill((one + other)[:, :, 0] == 0, torch.nan).to(members.device)
