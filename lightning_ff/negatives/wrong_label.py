"""The same image with a wrong label."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_ff.hashing import hash_bits
from lightning_ff.negatives.base import NegativeContext, NegativeSampler


def wrong_labels(
    y: Tensor, num_classes: int, index: Tensor, seed: int = 0, epoch: int = 0, held_out: Sequence[int] = ()
) -> Tensor:
    """A wrong class for every sample, uniform over the others, never the true one nor one that is held out.

    Args:
        y: True classes `(N,)`.
        num_classes: C.
        index: Index of each sample in its data set `(N,)`.
        seed: Seed of the draw.
        epoch: Another epoch is another draw.
        held_out: Classes that training must not see.

    Returns:
        Wrong classes `(N,)`.

    Example::

        >>> wrong_labels(torch.tensor([0, 1, 0]), 2, torch.arange(3))
        tensor([1, 0, 1])
        >>> wrong_labels(torch.tensor([0, 2, 0]), 3, torch.arange(3), held_out=[1])
        tensor([2, 0, 2])
    """
    return other_classes(y, num_classes, held_out)(hash_bits(index, seed, epoch))


def other_classes(y: Tensor, num_classes: int, held_out: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Function that maps integers, modulo the number of wrong classes, to wrong classes for `y`."""
    if not held_out:
        return lambda number: (y + 1 + number % (num_classes - 1)) % num_classes
    seen = torch.tensor([c for c in range(num_classes) if c not in held_out], device=y.device)
    position = torch.searchsorted(seen, y)
    return lambda number: seen[(position + 1 + number % (len(seen) - 1)) % len(seen)]


class WrongLabel(NegativeSampler):
    """The same image with a wrong label, uniform over the other classes, drawn anew every epoch.

    Args:
        seed: Seed of the draws.
    """

    def forward(self, x: Tensor, y: Tensor, index: Tensor, context: NegativeContext) -> Tensor:
        wrong = wrong_labels(y, context.num_classes, index, self.seed, context.epoch, context.held_out)
        return context.labels(x, wrong)
