"""A fixed wrong label for every sample."""

from __future__ import annotations

from torch import Tensor

from lightning_ff.negatives.base import NegativeContext, NegativeSampler
from lightning_ff.negatives.wrong_label import wrong_labels
from lightning_ff.validate import check_int


class FixedPool(NegativeSampler):
    """Every sample keeps the wrong label it is first given, until the pool is redrawn.

    Args:
        seed: Seed of the draws.
        draw: Number of the pool; :class:`~lightning_ff.callbacks.RefreshNegatives` raises it.
    """

    needs_index = True

    def __init__(self, seed: int = 0, draw: int = 0) -> None:
        super().__init__(seed)
        check_int("draw", draw)
        self.draw = draw

    @property
    def version(self) -> int | None:
        return self.draw

    def forward(self, x: Tensor, y: Tensor, index: Tensor, context: NegativeContext) -> Tensor:
        return context.labels(x, wrong_labels(y, context.num_classes, index, self.seed, self.draw, context.held_out))
