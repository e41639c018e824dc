"""Measures of weights: signs and moments, excitation and inhibition of units, connections between ensembles.

Shapes: N samples, U units, U_before units of the layer before, C classes; weights `(U, U_before)` as in `nn.Linear`.
The public protocol of arXiv 2305.18353 has no code for these: the measures are defined here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ff.metrics.ensembles import median


def weight_statistics(weight: Tensor, bias: Tensor | None = None) -> dict[str, Tensor]:
    """Share of negative weights, and their mean, median and skew; the same of the bias.

    Args:
        weight: Weights of any shape.
        bias: Bias `(U,)`.

    Returns:
        Scalars, float64: `negative`, `mean`, `median`, `skew` (third central moment over the 1.5th power of the
        second; NaN if all are equal), and with a bias `bias_negative`, `bias_mean`, `bias_median`, `bias_skew`.

    Raises:
        ValueError: there are no weights, or no biases.

    Example::

        >>> found = weight_statistics(torch.tensor([[-1.0, 0.0, 0.0, 5.0]]))
        >>> {name: round(float(value), 4) for name, value in found.items()}
        {'negative': 0.25, 'mean': 1.0, 'median': 0.0, 'skew': 1.0466}
    """
    found = _moments("weight", weight)
    if bias is not None:
        found |= {f"bias_{name}": value for name, value in _moments("bias", bias).items()}
    return found


def _moments(name: str, values: Tensor) -> dict[str, Tensor]:
    if not values.numel():
        raise ValueError(f"{name} of shape {tuple(values.shape)} has no entries: give those of a layer that has some")
    flat = values.detach().flatten().double()
    offset = flat - flat.mean()
    skew = offset.pow(3).mean() / offset.square().mean().pow(1.5)
    if bool(flat.min() == flat.max()):  # else rounding of the mean would count as variance
        skew = torch.full_like(skew, torch.nan)
    share = (flat < 0).double().mean()
    return {"negative": share, "mean": flat.mean(), "median": median(flat[:, None])[0], "skew": skew}


def excitation_inhibition(weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Excitation and inhibition of each unit: inputs through positive, and through negative weights.

    Their difference is the layer's output before bias and activation function.

    Args:
        weight: Weights `(U, U_before)`.
        x: Input of the layer, after any normalisation, `(N, U_before)`, not negative. Results are linear in it: for
            mean inputs of classes `(C, U_before)` they are the means of the classes.

    Returns:
        Excitation `sum_j max(W_ij, 0) x_j` and inhibition `sum_j max(-W_ij, 0) x_j`, each `(N, U)`, float64.

    Raises:
        ValueError: shapes do not fit, or an input is negative, for which the sign of a weight has no meaning.

    Example::

        >>> excitation, inhibition = excitation_inhibition(torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.5]]))
        >>> excitation.item(), inhibition.item()
        (3.0, 1.0)
    """
    if weight.ndim != 2 or x.ndim != 2 or weight.shape[1] != x.shape[1]:
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} and x of shape {tuple(x.shape)}: give (U, U_before) and (N, "
            "U_before)"
        )
    if bool((x < 0).any()):
        raise ValueError(f"x has {float(x[x < 0].min()):.4g} in it: excitation and inhibition need inputs of 0 or more")
    wide, inputs = weight.detach().double(), x.detach().double()
    return inputs @ wide.clamp(min=0).T, inputs @ (-wide).clamp(min=0).T


def inhibition_ratio(excitation: Tensor, inhibition: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Inhibition over excitation of the members of each class's ensemble, and of all other units.

    Args:
        excitation: Excitation of every unit on each class `(C, U)`.
        inhibition: Inhibition `(C, U)`.
        members: Membership `(C, U)`, bool.

    Returns:
        For members and for others `(C,)`, float64: sum of inhibition over sum of excitation, a mean over units weighted
        by excitation. NaN if there are no units; infinite if their excitation is 0.

    Raises:
        ValueError: shapes differ.

    Example::

        >>> excitation, inhibition = torch.tensor([[4.0, 1.0, 1.0]]), torch.tensor([[1.0, 3.0, 1.0]])
        >>> inhibition_ratio(excitation, inhibition, torch.tensor([[True, False, False]]))
        (tensor([0.2500], dtype=torch.float64), tensor([2.], dtype=torch.float64))
    """
    shapes = [tuple(each.shape) for each in (excitation, inhibition, members)]
    if len(set(shapes)) > 1 or members.ndim != 2:
        raise ValueError(f"excitation, inhibition and members of shapes {shapes}: give all three as (C, U)")

    def ratio(chosen: Tensor) -> Tensor:
        excited, inhibited = (torch.where(chosen, part.double(), 0.0).sum(1) for part in (excitation, inhibition))
        return inhibited / excited

    return ratio(members.bool()), ratio(~members.bool())


def ensemble_connectivity(weight: Tensor, members_before: Tensor, members_after: Tensor) -> Tensor:
    """Mean weight from each class's ensemble in one layer to each class's ensemble in the next.

    Args:
        weight: Weights of the later layer `(U, U_before)`.
        members_before: Membership in the layer before `(C, U_before)`, bool.
        members_after: Membership in the later layer `(C, U)`, bool.

    Returns:
        Matrix `(C, C)`, float64: entry `[c, d]` is the mean of `weight` from the ensemble of `d` before to the one of
        `c` after; NaN if either is empty. A larger diagonal means that ensembles excite those of the same class.

    Raises:
        ValueError: shapes do not fit.

    Example::

        >>> weight = torch.tensor([[1.0, 3.0, -1.0], [-4.0, -2.0, 5.0]])
        >>> before = torch.tensor([[True, True, False], [False, False, True]])
        >>> ensemble_connectivity(weight, before, torch.tensor([[True, False], [False, True]]))
        tensor([[ 2., -1.],
                [-3.,  5.]], dtype=torch.float64)
    """
    fitting = (*members_after.shape[1:], *members_before.shape[1:])
    if weight.ndim != 2 or fitting != tuple(weight.shape):
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} between ensembles of shapes {tuple(members_before.shape)} and "
            f"{tuple(members_after.shape)}: give (U, U_before), (C, U_before) and (C, U)"
        )
    before, after = members_before.double(), members_after.double()
    pairs = after.sum(1)[:, None] * before.sum(1)
    return after @ weight.detach().double() @ before.T / pairs
