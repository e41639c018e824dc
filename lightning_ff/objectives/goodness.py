"""Goodness: a scalar measure of a block's activation.

Shapes: N samples, D features, C classes, L local values. Pair mode: (N,) or (N, L). Class mode: (N, C).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt, prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.target import Target
from lightning_ff.validate import check_flag, check_int

Mode = Literal["pair", "class"]


def sum_square(h: Tensor) -> Tensor:
    """Sum of squared activities per sample, Hinton's goodness (arXiv 2212.13345, section 2).

    Args:
        h: Activations `(N, ...)`.

    Returns:
        Goodness `(N,)`.

    Example::

        >>> sum_square(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
        tensor([5., 9.])
    """
    return h.flatten(1).square().sum(1)


def mean_square(h: Tensor) -> Tensor:
    """Mean of squared activities per sample: :func:`sum_square` divided by the number of features.

    Args:
        h: Activations `(N, ...)`.

    Returns:
        Goodness `(N,)`.

    Example::

        >>> mean_square(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
        tensor([2.5000, 4.5000])
    """
    # scaling the sums, not the squares, saves the backward a pass over the activation
    return sum_square(h) / h.shape[1:].numel()


def norm_goodness(h: Tensor, p: float = 2.0) -> Tensor:
    """Lp norm of the activities per sample, not squared (arXiv 2305.18353 uses p = 2, variants 1 and inf).

    Args:
        h: Activations `(N, ...)`.
        p: Order of the norm.

    Returns:
        Goodness `(N,)`.

    Example::

        >>> norm_goodness(torch.tensor([[3.0, 4.0]]))
        tensor([5.])
        >>> norm_goodness(torch.tensor([[3.0, 4.0]]), float("inf"))
        tensor([4.])
    """
    return torch.linalg.vector_norm(h.flatten(1), p, dim=1)


def wide(h: Tensor) -> Tensor:
    """An activation in float32; float64 is kept."""
    return h if h.dtype in (torch.float32, torch.float64) else h.float()


class Goodness(nn.Module):
    """Base of all goodness functions: override `forward`, and `unit` if a threshold is to be derived from it.

    A block passes its activation in float32 (float64 is kept) with autocast off, so `forward` can ignore the precision
    of training. Keep arguments of `__init__` as attributes of the same name, so that checkpoints can describe the part.

    A fitted goodness overrides `observe` and `fit`: its weights are buffers, solved at the end of every training epoch
    in which its block learns, before the validation.

    Attributes:
        mode: "pair" or "class".
        sums: Names of the buffers that `observe` adds to and `fit` resets to 0. They are saved in checkpoints, and
            those of a checkpoint in mid-epoch are summed over processes.
    """

    mode: Mode = "pair"
    sums: tuple[str, ...] = ()

    @property
    def fitted(self) -> bool:
        """Whether the goodness is solved from sums over an epoch."""
        return type(self).fit is not Goodness.fit

    def build(self, shape: torch.Size, num_classes: int) -> None:
        """Create parameters, if any, for an activation of `shape` (without the batch axis)."""

    def unit(self, shape: Sequence[int]) -> float:
        """Goodness of an activation of ones, of `shape` without the batch axis: the scale of a default threshold."""
        return float(self(torch.ones(1, *shape)).mean())

    def observe(self, h: Tensor, target: Target) -> None:
        """Add an activation `(N, ...)` of a training batch to the sums; called without gradients."""

    def fit(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Solve for the weights, and reset the sums; `reduce` sums a tensor over all processes."""

    def forward(self, h: Tensor) -> Tensor:
        """Map an activation `(N, ...)` to goodness: `(N,)`, or `(N, L)`, in pair mode; `(N, C)` in class mode.

        L local values, such as one per position of a map, are compared by the loss one by one; the goodness of the
        sample is their mean.
        """
        raise TypeError(f"{type(self).__name__} must override forward(h)")


class SumSquare(Goodness):
    """Sum of squares, see :func:`sum_square`; its default threshold is the number of features."""

    def forward(self, h: Tensor) -> Tensor:
        return sum_square(h)


class MeanSquare(Goodness):
    """Mean of squares, see :func:`mean_square`; its default threshold is 1."""

    def forward(self, h: Tensor) -> Tensor:
        return mean_square(h)


class NormGoodness(Goodness):
    """L1, L2 or Linf norm, see :func:`norm_goodness`.

    Args:
        p: 1, 2 or "inf". The default threshold is D, sqrt(D) or 1 for D features.

    Raises:
        ValueError: `p` is something else.
    """

    def __init__(self, p: Literal[1, 2, "inf"] = 2) -> None:
        super().__init__()
        if isinstance(p, bool) or p not in (1, 2, "inf"):
            raise ValueError(f"p={p!r}: choose 1, 2 or 'inf'")
        self.p = p

    def forward(self, h: Tensor) -> Tensor:
        return norm_goodness(h, float(self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class LinearGoodness(Goodness):
    """One linear projection per class of the flattened activation (Mono-Forward, arXiv 2501.09238): class mode.

    Args:
        bias: Learn an offset per class.
        max_features: Maps `(N, C, H, W)` are averaged to the largest square of positions with at most as many features
            in all channels, at least one position; None leaves them as they are.

    Raises:
        ValueError: max_features is below 1.
        TypeError: bias is not a bool, or max_features not an integer.
    """

    mode: Mode = "class"
    projection: nn.Linear | None
    max_features: int | None = None
    _size: tuple[int, int] | None = None

    def __init__(self, bias: bool = True, max_features: int | None = None) -> None:
        super().__init__()
        check_flag("bias", bias)
        if max_features is not None:
            check_int("max_features", max_features, "give a number of features, such as 2048, or None")
            if max_features < 1:
                raise ValueError(f"max_features={max_features}: must be at least 1, or None")
        self.bias = bias
        self.max_features = max_features
        self.projection = None

    def build(self, shape: torch.Size, num_classes: int) -> None:
        features = shape.numel()
        if self.max_features is not None and len(shape) == 3 and features > self.max_features:
            side = max(1, isqrt(self.max_features // shape[0]))
            self._size = (min(side, shape[1]), min(side, shape[2]))
            features = shape[0] * prod(self._size)
        self.projection = nn.Linear(features, num_classes, bias=self.bias)

    def forward(self, h: Tensor) -> Tensor:
        projection = self.projection
        if not isinstance(projection, nn.Linear):
            raise RuntimeError(
                f"{type(self).__name__} has no weights yet: LocalNetwork builds them from its input_shape"
            )
        weight, bias = projection.weight, projection.bias
        h = h if self._size is None else F.adaptive_avg_pool2d(h, self._size)
        return F.linear(h.flatten(1), weight.to(h.dtype), None if bias is None else bias.to(h.dtype))
