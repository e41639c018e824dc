"""A linear class goodness that is solved in closed form at the end of an epoch.

Shapes: N samples, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_ff.objectives.goodness import Goodness, Mode
from lightning_ff.target import Labels, Target
from lightning_ff.validate import check_number


class SolvedGoodness(Goodness):
    """Ridge regression of one-hot labels on the flattened activation (CaFo, arXiv 2303.09728): class mode, fitted.

    During an epoch it sums `G = sum h h^T` (D, D) and `R = sum h onehot(y)^T` (D, C) in float64, and at its end solves
    `(G + ridge I) W = R`; the goodness is `h W`, zero before. W minimises
    `sum_n |h_n W - onehot(y_n)|^2 + ridge |W|^2` over the samples of the epoch, whatever the batches and processes.

    It needs a device with float64, which MPS is not. G takes `8 D^2` bytes from the first batch of an epoch to its end,
    512 MiB for 8192 features, and that much in a checkpoint in mid-epoch.

    Args:
        ridge: Weight of the squared norm, above 0: activations are often of lower rank than D.

    Raises:
        ValueError: ridge is not above 0.
        TypeError: ridge is not a number, or the target is one of pair mode.
    """

    mode: Mode = "class"
    sums = ("gram", "moment")
    gram: Tensor
    moment: Tensor
    weight: Tensor

    def __init__(self, ridge: float = 1.0) -> None:
        super().__init__()
        check_number("ridge", ridge, "must be above 0", above=0)
        self.ridge = ridge

    def build(self, shape: torch.Size, num_classes: int) -> None:
        self.register_buffer("weight", torch.zeros(shape.numel(), num_classes))
        for name in self.sums:
            self.register_buffer(name, torch.zeros(0, 0, dtype=torch.float64))

    def observe(self, h: Tensor, target: Target) -> None:
        if not isinstance(target, Labels):
            raise TypeError(f"SolvedGoodness is fitted to labels: its target is Labels(label), not {target!r}")
        rows = h.flatten(1).double()  # in float32 the sum of many samples need not be positive definite
        if not len(self.gram):
            features, classes = self.weight.shape
            self.gram, self.moment = self.gram.new_zeros(features, features), self.moment.new_zeros(features, classes)
        self.gram += rows.T @ rows
        self.moment += rows.T @ F.one_hot(target.label, self.weight.shape[1]).double()

    def fit(self, reduce: Callable[[Tensor], Tensor]) -> None:
        gram, moment = reduce(self.gram), reduce(self.moment)
        gram.diagonal().add_(self.ridge)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            raise ValueError(f"ridge={self.ridge} is too small for the activations, or they are not finite: raise it")
        self.weight.copy_(torch.cholesky_solve(moment, factor))
        self.gram, self.moment = gram.new_zeros(0, 0), moment.new_zeros(0, 0)

    def forward(self, h: Tensor) -> Tensor:
        return h.flatten(1) @ self.weight.to(h.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.sums:  # empty at the end of an epoch, and not in mid-epoch
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor) and saved.shape != getattr(self, name).shape:
                setattr(self, name, getattr(self, name).new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"ridge={self.ridge}"
