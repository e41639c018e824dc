"""Class-mode losses in which the true class competes with the mean of the others, and weighted sums of losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lightning_ff.objectives.class_losses import ClassLoss
from lightning_ff.objectives.losses import LocalLoss, threshold_loss
from lightning_ff.target import Target
from lightning_ff.validate import check_number, check_type


class OwnAgainstOthers(ClassLoss):
    """The goodness of the true class above a threshold, the mean of the others' below it (PvN of arXiv 2312.12668).

    `(softplus(threshold - g_y) + softplus(mean_{c != y} g_c - threshold)) / 2`, averaged over the batch: half of
    :func:`~lightning_ff.objectives.threshold_loss`.

    Args:
        threshold: Goodness between the true class and the others.

    Raises:
        TypeError: threshold is not a number.

    Example::

        >>> from lightning_ff.target import Labels
        >>> OwnAgainstOthers(threshold=2.0)(torch.tensor([[3.0, 0.5, 1.5]]), Labels(torch.tensor([0])))
        tensor(0.3133)
    """

    def __init__(self, threshold: float = 2.0) -> None:
        super().__init__()
        check_number("threshold", threshold, "give a finite number")
        self.threshold = threshold

    def forward(self, goodness: Tensor, target: Target) -> Tensor:
        own = goodness.gather(1, self.labels(target)[:, None]).squeeze(1)
        others = (goodness.sum(1) - own) / (goodness.shape[1] - 1)
        return threshold_loss(own, others, self.threshold) / 2

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"


class WeightedLosses(LocalLoss):
    """Weighted sum of local losses of one mode, such as CWG of arXiv 2312.12668: .28 cross-entropy + .72 PvN.

    Args:
        losses: The losses.
        weights: Factor of each, 0 or more.

    Raises:
        ValueError: there is no loss, their number differs from that of the weights, or they are of different modes.
        TypeError: losses is not a list of losses, or weights not a list of numbers.

    Example::

        >>> from lightning_ff import CrossEntropy, Labels
        >>> loss = WeightedLosses([CrossEntropy(), OwnAgainstOthers(2.0)], [0.28, 0.72])
        >>> loss(torch.tensor([[3.0, 0.5, 1.5]]), Labels(torch.tensor([0])))
        tensor(0.3001)
    """

    def __init__(self, losses: Sequence[LocalLoss], weights: Sequence[float]) -> None:
        super().__init__()
        check_type("losses", losses, Sequence, "give a list of losses, such as [CrossEntropy(), OwnAgainstOthers()]")
        for i, loss in enumerate(losses):
            check_type(f"losses[{i}]", loss, LocalLoss, "give a LocalLoss, such as CrossEntropy()")
        check_type("weights", weights, Sequence, "give a list of numbers, one for each loss")
        for i, weight in enumerate(weights):
            check_number(f"weights[{i}]", weight, "must be 0 or more", least=0)
        if not losses or len(losses) != len(weights):
            raise ValueError(
                f"losses={list(losses)} and weights={list(weights)}: give at least one, and as many of both"
            )
        if len({loss.mode for loss in losses}) > 1:
            raise ValueError(f"losses of modes {[loss.mode for loss in losses]}: give losses of one mode")
        self.losses = nn.ModuleList(losses)
        self.weights = list(weights)
        self.mode = losses[0].mode

    @property
    def _members(self) -> list[LocalLoss]:
        return cast(list[LocalLoss], list(self.losses))

    def bind(self, unit: float) -> None:
        for loss in self._members:
            loss.bind(unit)

    def forward(self, goodness: Tensor, target: Target) -> Tensor:
        pairs = zip(self.weights, self._members, strict=True)
        return torch.stack([weight * loss(goodness, target) for weight, loss in pairs]).sum()

    def extra_repr(self) -> str:
        return f"weights={self.weights}"
