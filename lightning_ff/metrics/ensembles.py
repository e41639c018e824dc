"""Category-specific ensembles: units that respond to a class, by three definitions, and their overlap.

Shapes: N samples, U units, C classes. Formulas as in the public protocol of arXiv 2305.18353.
"""

from __future__ import annotations

import torch
from torch import Tensor


def quantile_median_ensemble(h: Tensor, quantile: float = 0.9) -> Tensor:
    """Units whose median over a class's samples is above a quantile of all its activities.

    Args:
        h: Activations of one class `(N, U)`.
        quantile: Share of all N times U activities below the threshold, in (0, 1).

    Returns:
        Membership `(U,)`, bool; all False for a class without samples.

    Raises:
        ValueError: quantile outside (0, 1).

    Example::

        >>> quantile_median_ensemble(torch.tensor([[0.0, 0.0, 9.0], [0.0, 1.0, 8.0]]), quantile=0.5)
        tensor([False, False,  True])
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile={quantile}: must lie in (0, 1)")
    if not len(h):
        return torch.zeros(h.shape[1], dtype=torch.bool, device=h.device)
    values = h.double().flatten().sort().values
    position = quantile * (len(values) - 1)  # torch.quantile accepts no more than 2^24 values
    low = int(position)
    high = min(low + 1, len(values) - 1)
    threshold = values[low] + (position - low) * (values[high] - values[low])
    return median(h.double()) > threshold


def median(h: Tensor) -> Tensor:
    """Median over samples `(N, U)` to `(U,)`, the mean of the two in the middle for an even number."""
    ranked = h.sort(0).values
    n = len(ranked)
    return (ranked[(n - 1) // 2] + ranked[n // 2]) / 2


def leave_one_out_ensemble(mean: Tensor, k: float = 1.0) -> Tensor:
    """Units whose mean activity is more than `1 + k` times the mean of all other units.

    Args:
        mean: Mean activity of every unit on each class `(C, U)`, or of one class `(U,)`.
        k: Excess over the others, as a share of their mean.

    Returns:
        Membership, bool, of the same shape; False where the mean is NaN, such as for a class without samples.

    Example::

        >>> leave_one_out_ensemble(torch.tensor([0.0, 1.0, 1.0, 6.0]))
        tensor([False, False, False,  True])
    """
    others = (mean.sum(-1, keepdim=True) - mean) / (mean.shape[-1] - 1)
    return mean - others > k * others


def kolmogorov_smirnov_ensemble(h: Tensor, level: float = 0.05) -> Tensor:
    """Units whose distribution of activities differs from those of the other units.

    A unit is a member if the mean of the p-values of two-sample Kolmogorov-Smirnov tests against every other unit is
    below the level. The published code compares a unit only with units of higher index; this function does not depend
    on the order of the units.

    Args:
        h: Activations of one class `(N, U)`.
        level: Bound on the mean p-value, in (0, 1).

    Returns:
        Membership `(U,)`, bool; all False for a class with fewer than 2 samples, which has no p-value.

    Raises:
        ValueError: level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level}: must lie in (0, 1)")
    p = kolmogorov_smirnov_p_values(h)
    return p.fill_diagonal_(0).sum(1) / (len(p) - 1) < level


def kolmogorov_smirnov_p_values(h: Tensor) -> Tensor:
    """Asymptotic p-values of two-sample Kolmogorov-Smirnov tests between all pairs of units.

    Args:
        h: Activations `(N, U)`.

    Returns:
        Symmetric matrix `(U, U)`, float64, with 1 on the diagonal; all NaN for fewer than 2 samples.
    """
    from scipy.stats import kstwo  # type: ignore[import-untyped]

    if len(h) < 2:
        return torch.full((h.shape[1],) * 2, torch.nan, dtype=torch.float64, device=h.device)
    ranked = h.double().T.contiguous().sort(1).values
    samples = ranked.shape[1]
    own = torch.searchsorted(ranked, ranked, right=True)
    gaps = torch.stack([_gaps(ranked, unit, at) for unit, at in zip(ranked, own, strict=True)])
    distance = torch.maximum(gaps, gaps.T)
    table = kstwo.sf([k / samples for k in range(samples + 1)], round(samples / 2))
    return torch.from_numpy(table).clamp(0, 1).to(h.device)[distance]


def _gaps(ranked: Tensor, unit: Tensor, at: Tensor) -> Tensor:
    """Largest difference between one unit's distribution and every other's at its own values, in samples `(U,)`."""
    below = torch.searchsorted(ranked, unit.expand_as(ranked).contiguous(), right=True)
    return (below - at).abs().amax(1)


def shared_units(members: Tensor) -> Tensor:
    """Number of units in both ensembles, for all pairs of classes; the diagonal has the sizes.

    Args:
        members: Membership `(C, U)`, bool.

    Returns:
        Counts `(C, C)`.

    Example::

        >>> shared_units(torch.tensor([[True, True, False], [False, True, False]]))
        tensor([[2, 1],
                [1, 1]])
    """
    masks = members.bool()
    return (
        torch.stack([(masks & one).sum(1) for one in masks]) if len(masks) else masks.new_zeros(0, 0, dtype=torch.int64)
    )


def jaccard(members: Tensor) -> Tensor:
    """Jaccard index (shared units over units in either) of two ensembles, `(C, C)`; NaN if both are empty.

    Example::

        >>> jaccard(torch.tensor([[True, True, False], [False, True, False]]))
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])
    """
    both = shared_units(members)
    sizes = both.diagonal()
    return both / (sizes[:, None] + sizes[None] - both)


def mean_jaccard(members: Tensor) -> Tensor:
    """Mean of :func:`jaccard` over pairs of different classes, without pairs of empty ensembles."""
    matrix = jaccard(members)
    above = torch.triu(torch.ones_like(matrix), diagonal=1).bool()
    return matrix[above].nanmean()


def selectivity_order(members: Tensor) -> Tensor:
    """Number of ensembles that each unit is in, `(U,)`; above 1 it has mixed selectivity.

    Example::

        >>> selectivity_order(torch.tensor([[True, True, False], [False, True, False]]))
        tensor([1, 2, 0])
    """
    return members.sum(0)


def selectivity_shares(members: Tensor) -> Tensor:
    """Share of the units that are in no ensemble, in one, in two, and in three or more, `(4,)`; they sum to 1.

    Example::

        >>> selectivity_shares(torch.tensor([[True, True, False, False], [False, True, False, False]]))
        tensor([0.5000, 0.2500, 0.2500, 0.0000])
    """
    order = members.bool().sum(0).clamp(max=3)
    return torch.bincount(order, minlength=4) / len(order)


def ensemble_sizes(members: Tensor) -> Tensor:
    """Number of units in each class's ensemble `(C, U)`, as `(C,)`.

    Example::

        >>> ensemble_sizes(torch.tensor([[True, True, False], [False, True, False]]))
        tensor([2, 1])
    """
    return members.bool().sum(1)
