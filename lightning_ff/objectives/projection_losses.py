"""Class-mode losses of CaFo beside the cross-entropy: squared error and sparsemax.

Shapes: N samples, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_ff.objectives.class_losses import ClassLoss
from lightning_ff.target import Target


class SquaredError(ClassLoss):
    """Mean over the samples of `|g - onehot(y)|^2`, the loss that `SolvedGoodness` minimises (arXiv 2303.09728).

    Example::

        >>> from lightning_ff.target import Labels
        >>> SquaredError()(torch.tensor([[1.0, 0.5], [0.0, 0.0]]), Labels(torch.tensor([0, 1])))
        tensor(0.6250)
    """

    def forward(self, goodness: Tensor, target: Target) -> Tensor:
        wanted = F.one_hot(self.labels(target), goodness.shape[1]).to(goodness.dtype)
        return (goodness - wanted).square().sum(1).mean()


def sparsemax_threshold(scores: Tensor) -> Tensor:
    """Number t of each row of scores `(N, C)` for which `max(scores - t, 0)` sums to 1; returns `(N, 1)`."""
    ordered = scores.sort(1, descending=True).values
    above = ordered.cumsum(1) - 1
    count = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    size = (ordered * count > above).sum(1, keepdim=True)
    return above.gather(1, size - 1) / size


def sparsemax(scores: Tensor) -> Tensor:
    """Euclidean projection of each row on the probability simplex (arXiv 1602.02068, eq. 1); `(N, C)` to `(N, C)`.

    Example::

        >>> sparsemax(torch.tensor([[1.0, 0.5, -1.0]]))
        tensor([[0.7500, 0.2500, 0.0000]])
    """
    return (scores - sparsemax_threshold(scores)).clamp(min=0)


class Sparsemax(ClassLoss):
    """Sparsemax loss, whose gradient is `(sparsemax(g) - onehot(y)) / N` (arXiv 1602.02068, eq. 17).

    `-g_y + (sum_{c: p_c > 0} (g_c^2 - t^2) + 1) / 2`, averaged over the samples, with `p = sparsemax(g)` and its
    threshold t. It is 0 where the goodness of the true class is above all others by 1 or more.

    Example::

        >>> from lightning_ff.target import Labels
        >>> Sparsemax()(torch.tensor([[1.0, 0.5, -1.0]]), Labels(torch.tensor([0])))
        tensor(0.0625)
    """

    def forward(self, goodness: Tensor, target: Target) -> Tensor:
        threshold = sparsemax_threshold(goodness)
        kept = torch.where(goodness > threshold, goodness.square() - threshold.square(), 0.0)
        own = goodness.gather(1, self.labels(target)[:, None]).squeeze(1)
        return (kept.sum(1) / 2 - own + 0.5).mean()
