"""Every wrong label of every image."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ff.negatives.base import NegativeContext, NegativeSampler
from lightning_ff.negatives.wrong_label import other_classes


class AllWrongLabels(NegativeSampler):
    """All wrong labels of every image: C - 1 negatives for each positive, fewer where classes are held out."""

    def __init__(self) -> None:
        super().__init__(seed=0)

    @property
    def version(self) -> int | None:
        return 0

    def forward(self, x: Tensor, y: Tensor, index: Tensor, context: NegativeContext) -> Tensor:
        others = context.num_classes - len(context.held_out) - 1
        number = torch.arange(others, device=y.device).unsqueeze(1)
        wrong = other_classes(y, context.num_classes, context.held_out)(number)
        return context.labels(x.repeat(others, *[1] * (x.dim() - 1)), wrong.flatten())

    def extra_repr(self) -> str:
        return ""
