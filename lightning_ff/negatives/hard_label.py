"""Wrong labels with high scores by the network itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ff.hashing import hash_uniform, host_uniform
from lightning_ff.negatives.base import NegativeContext, NegativeSampler
from lightning_ff.negatives.wrong_label import wrong_labels
from lightning_ff.validate import check_int, check_number


def hard_labels(
    scores: Tensor, y: Tensor, index: Tensor, seed: int = 0, epoch: int = 0, held_out: Sequence[int] = ()
) -> Tensor:
    """A wrong class for every sample, drawn in proportion to the softmax of the scores, never the true one.

    Args:
        scores: Class scores `(N, C)`.
        y: True classes `(N,)`.
        index: Index of each sample `(N,)`.
        seed: Seed of the draw.
        epoch: Another epoch is another draw.
        held_out: Classes that training must not see.

    Returns:
        Wrong classes `(N,)`.

    Example::

        >>> hard_labels(torch.tensor([[9.0, 0.0, 90.0]]), torch.tensor([0]), torch.tensor([5]))
        tensor([2])
    """
    wrong = scores.float().scatter(1, y.unsqueeze(1), -torch.inf)
    wrong[:, list(held_out)] = -torch.inf
    cells = index.unsqueeze(1) * scores.shape[1] + torch.arange(scores.shape[1], device=y.device)
    uniform = hash_uniform(cells, seed, epoch)
    return (wrong - torch.log(-torch.log(uniform))).argmax(1)


class HardLabel(NegativeSampler):
    """A wrong label drawn in proportion to the network's own scores (arXiv 2212.13345, section 3.3).

    The scan runs in eval mode without gradients. Other batches, and earlier epochs, get plain wrong labels.

    Args:
        seed: Seed of the draws.
        fraction: Share of the batches that get hard labels; a scan costs about as much as C forward passes.
        start_epoch: First epoch with hard labels: the scores are uninformative before the network is above chance.

    Raises:
        ValueError: fraction outside (0, 1], or start_epoch negative.
        TypeError: an argument is not of the annotated type.
    """

    needs_scores = True

    def __init__(self, seed: int = 0, fraction: float = 0.25, start_epoch: int = 1) -> None:
        super().__init__(seed)
        check_number("fraction", fraction, "must lie in (0, 1]", above=0)
        if fraction > 1:
            raise ValueError(f"fraction={fraction}: must lie in (0, 1]")
        check_int("start_epoch", start_epoch)
        if start_epoch < 0:
            raise ValueError(f"start_epoch={start_epoch}: must be 0 or more")
        self.fraction = fraction
        self.start_epoch = start_epoch

    def forward(self, x: Tensor, y: Tensor, index: Tensor, context: NegativeContext) -> Tensor:
        epoch = context.epoch
        if epoch < self.start_epoch or host_uniform(self.seed, epoch, context.batch) >= self.fraction:
            wrong = wrong_labels(y, context.num_classes, index, self.seed, epoch, context.held_out)
            return context.labels(x, wrong)
        scores = context.scores(x)
        return context.labels(x, hard_labels(scores, y, index, self.seed, epoch, context.held_out))

    def extra_repr(self) -> str:
        return f"seed={self.seed}, fraction={self.fraction}, start_epoch={self.start_epoch}"
