"""Local losses on a block's goodness.

Pair mode: goodness `(P + M,)`, or `(P + M, L)` for L local values, the first P rows positive; target = Pairs(P).
Class mode: goodness `(N, C)`; target = Labels(label).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.objectives.goodness import Mode
from lightning_ff.target import Pairs, Target
from lightning_ff.validate import check_number


def threshold_loss(positive: Tensor, negative: Tensor, threshold: float) -> Tensor:
    """Hinton's loss: softplus(threshold - g+) + softplus(g- - threshold), each side a mean (arXiv 2212.13345, eq. 1).

    Args:
        positive: Goodness of positives `(P,)`, or local values `(P, L)`.
        negative: Goodness of negatives `(M,)` or `(M, L)`; M may differ from P.
        threshold: Goodness at which a sample is as likely positive as negative.

    Returns:
        Scalar loss; twice the binary cross-entropy of `goodness - threshold` when P = M.

    Example::

        >>> import torch
        >>> threshold_loss(torch.tensor([3.0]), torch.tensor([1.0]), threshold=2.0)
        tensor(0.6265)
    """
    return F.softplus(threshold - positive).mean() + F.softplus(negative - threshold).mean()


def symba_loss(positive: Tensor, negative: Tensor, alpha: float = 4.0) -> Tensor:
    """SymBa: softplus(-alpha (g+ - g-)), no threshold (arXiv 2303.08418, eq. 3).

    Args:
        positive: Goodness of positives `(P,)`, or local values `(P, L)`.
        negative: Goodness of negatives `(k P,)` or `(k P, L)`: k groups in the order of the positives.
        alpha: Scale of the difference.

    Returns:
        Scalar loss.

    Raises:
        ValueError: the number of negatives is not a multiple of the number of positives.

    Example::

        >>> import torch
        >>> symba_loss(torch.tensor([3.0]), torch.tensor([1.0]), alpha=1.0)
        tensor(0.1269)
    """
    if negative.shape[0] % positive.shape[0]:
        raise ValueError(
            f"SymBa pairs every negative with a positive: {negative.shape[0]} negatives for {positive.shape[0]} "
            "positives; use a sampler that returns one or more negatives for each, or ThresholdLoss"
        )
    return F.softplus(alpha * (negative.view(-1, *positive.shape) - positive)).mean()


class LocalLoss(nn.Module):
    """Base of all local losses: override `forward(goodness, target)`, or see :class:`PairLoss`."""

    mode: Mode = "class"

    def bind(self, unit: float) -> None:
        """Set the scale of the goodness: its value for an activation of ones. Called once, before training."""

    def forward(self, goodness: Tensor, target: Target) -> Tensor:
        """Map goodness and target (see the top of this file) to a scalar."""
        raise TypeError(f"{type(self).__name__} must override forward(goodness, target)")


class PairLoss(LocalLoss):
    """Base of losses on positives and negatives: override `pair(positive, negative)`."""

    mode: Mode = "pair"

    def pair(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Map goodness of positives `(P,)` and of negatives `(M,)`, or their local values, to a scalar."""
        raise TypeError(f"{type(self).__name__} must override pair(positive, negative)")

    def forward(self, goodness: Tensor, target: Target) -> Tensor:
        if not isinstance(target, Pairs):
            raise TypeError(
                f"{type(self).__name__} is a pair-mode loss: its target is Pairs(positives), not {target!r}"
            )
        return self.pair(goodness[: target.positives], goodness[target.positives :])


class ThresholdLoss(PairLoss):
    """Softplus around a threshold, see :func:`threshold_loss`.

    Args:
        threshold: None is the goodness of an activation of ones, which depends on the reduction: 1 for a mean of
            squares, D for a sum, sqrt(D) for the L2 norm of D features.
    """

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__()
        if threshold is not None:
            check_number("threshold", threshold, "give a finite goodness, or None for one that fits")
        self.threshold = threshold
        self.bound = threshold

    def bind(self, unit: float) -> None:
        self.bound = unit if self.threshold is None else self.threshold

    def pair(self, positive: Tensor, negative: Tensor) -> Tensor:
        if self.bound is None:
            raise RuntimeError("threshold=None is filled in by LocalNetwork; give a number to use the loss alone")
        return threshold_loss(positive, negative, self.bound)

    def extra_repr(self) -> str:
        return f"threshold={self.bound}"


class SymBa(PairLoss):
    """Symmetric loss on the difference of goodness, see :func:`symba_loss`.

    Args:
        alpha: Scale of the difference, above 0.
    """

    def __init__(self, alpha: float = 4.0) -> None:
        super().__init__()
        check_number("alpha", alpha, "must be above 0", above=0)
        self.alpha = alpha

    def pair(self, positive: Tensor, negative: Tensor) -> Tensor:
        return symba_loss(positive, negative, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"
