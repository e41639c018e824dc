"""Terms: scalars added to a block's loss, functions of the block's input x, its activation h and the target."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_ff.objectives.goodness import wide
from lightning_ff.target import Target, rows
from lightning_ff.validate import check_number


class Term(nn.Module):
    """Base of all terms: override `forward(x, h, target)`; parameters and buffers may be made in `build`.

    A block passes its input and activation in float32 (float64 is kept) with autocast off, as to a goodness.
    """

    def build(self, shape: torch.Size, inputs: torch.Size, num_classes: int) -> None:
        """Create parameters or buffers for an activation of `shape` and an input `inputs`, without the batch axis."""

    def forward(self, x: Tensor, h: Tensor, target: Target) -> Tensor:
        """Map input `(N, ...)`, activation `(N, ...)` and the loss's target to a scalar that includes its weight."""
        raise TypeError(f"{type(self).__name__} must override forward(x, h, target)")


def peer_normalization(mean: Tensor) -> Tensor:
    """Mean squared distance of the units' mean activities `(D,)` from the layer's mean.

    Example::

        >>> peer_normalization(torch.tensor([0.0, 2.0]))
        tensor(1.)
    """
    return (mean - mean.mean()).square().mean()


class PeerNormalization(Term):
    """Pull every unit's running mean activity on positives towards the mean of its layer (arXiv 2212.13345, sec. 3.3).

    It prevents units that are never or always active. The gradient flows through this batch's share of the running
    mean. In class mode the mean is over all rows.

    Args:
        weight: Factor of the term; the published reimplementation uses 0.03.
        momentum: Share of the old running mean that is kept, in [0, 1).
    """

    running_mean: Tensor

    def __init__(self, weight: float = 0.03, momentum: float = 0.9) -> None:
        super().__init__()
        check_number("weight", weight, "must be 0 or more", least=0)
        check_number("momentum", momentum, "must lie in [0, 1)", least=0)
        if momentum >= 1:
            raise ValueError(f"momentum={momentum}: must lie in [0, 1)")
        self.weight = weight
        self.momentum = momentum

    def build(self, shape: torch.Size, inputs: torch.Size, num_classes: int) -> None:
        self.register_buffer("running_mean", torch.full((shape.numel(),), 0.5))

    def forward(self, x: Tensor, h: Tensor, target: Target) -> Tensor:
        batch_mean = rows(wide(h), target).flatten(1).mean(0)
        mean = torch.lerp(batch_mean, self.running_mean.to(batch_mean.dtype), self.momentum)
        if self.training:
            self.running_mean.copy_(mean.detach())
        return self.weight * peer_normalization(mean)

    def extra_repr(self) -> str:
        return f"weight={self.weight}, momentum={self.momentum}"


class ActivationPenalty(Term):
    """L1 penalty on activations, which makes them sparse: `weight` times their summed absolute values.

    The protocol of arXiv 2305.18353 compares backprop with such a penalty on all hidden layers to Forward-Forward. In
    pair mode the penalty is on positives and negatives.

    Args:
        weight: Factor of the term.
        reduction: "sum" over samples and units, as in the protocol, or "mean" over both.

    Raises:
        ValueError: a negative weight, or another reduction.

    Example::

        >>> from lightning_ff.target import Pairs
        >>> ActivationPenalty(0.5)(torch.zeros(1), torch.tensor([[1.0, -3.0]]), Pairs(1))
        tensor(2.)
    """

    def __init__(self, weight: float, reduction: Literal["sum", "mean"] = "sum") -> None:
        super().__init__()
        check_number("weight", weight, "must be 0 or more", least=0)
        if reduction not in ("sum", "mean"):
            raise ValueError(f"reduction={reduction!r}: choose 'sum' or 'mean'")
        self.weight = weight
        self.reduction = reduction

    def forward(self, x: Tensor, h: Tensor, target: Target) -> Tensor:
        magnitude = wide(h).abs()
        return self.weight * (magnitude.sum() if self.reduction == "sum" else magnitude.mean())

    def extra_repr(self) -> str:
        return f"weight={self.weight}, reduction={self.reduction!r}"


def transport_cost(x: Tensor, h: Tensor, tau: float) -> Tensor:
    """Mean squared displacement of the activation from the input, divided by `2 tau` (arXiv 2210.00949).

    Args:
        x: Input of a block `(N, ...)`.
        h: Its activation, of the same shape.
        tau: Time step; the smaller, the closer the block stays to the identity.

    Returns:
        Scalar; the mean is over samples and elements.

    Example::

        >>> transport_cost(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]), tau=0.5)
        tensor(5.)
    """
    return (h - x).square().mean() / (2 * tau)


class TransportCost(Term):
    """Cost of moving the input, see :func:`transport_cost`: regularises a residual block towards the identity.

    With D elements per sample, `tau` here is D times smaller than where the squared norm per sample is averaged, as in
    the text of arXiv 2309.17357; the released code has the mean over elements. In a block `x + r(x)` the cost is that
    of the residue `r`. With a ReLU after the sum, `h - x` is `max(r, -x)`, for non-negative `x`.

    Args:
        tau: Time step of the minimising-movement scheme, above 0.

    Raises:
        ValueError: tau is not above 0, or, when the network is built, input and activation differ in shape.

    Example::

        >>> from lightning_ff.target import Labels
        >>> x = torch.zeros(1, 2)
        >>> TransportCost(0.5)(x, x + 1, Labels(torch.tensor([0])))
        tensor(1.)
    """

    def __init__(self, tau: float) -> None:
        super().__init__()
        check_number("tau", tau, "must be above 0", above=0)
        self.tau = tau

    def build(self, shape: torch.Size, inputs: torch.Size, num_classes: int) -> None:
        if shape != inputs:
            raise ValueError(
                f"TransportCost(tau={self.tau}) compares input and activation of a block, of shapes {tuple(inputs)} "
                f"and {tuple(shape)}: give it to blocks that keep the shape"
            )

    def forward(self, x: Tensor, h: Tensor, target: Target) -> Tensor:
        return transport_cost(x, h, self.tau)

    def extra_repr(self) -> str:
        return f"tau={self.tau}"
