"""Losses of training as sums that stay on the device, read at log intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_ff.sweep import SweepResult
from lightning_ff.sweep.finite import check_losses
from lightning_ff.target import Target, plain


class TrainLog:
    """Mean losses by name since the last call of `means`."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop all losses."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a batch, scalars on the device."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Mean losses since the last call, in one transfer from the device."""
        if not self._sums:
            return {}
        means = torch.stack([self._sums[name] / self._counts[name] for name in self._sums]).tolist()
        named = dict(zip(self._sums, means, strict=True))
        self.clear()
        return named

    def check(self) -> None:
        """Check the losses added since the last call of `means`.

        Raises:
            NonFiniteLoss: a loss is not finite.
        """
        check_losses({name: float(value) for name, value in self._sums.items()})


def logged(means: Mapping[str, float]) -> dict[str, float]:
    """Mean losses, and the accuracy "acc", by the name that they are logged under, with the sum of blocks' losses."""
    losses = {name: value for name, value in means.items() if name != "acc"}
    total = sum((value for name, value in losses.items() if name != "readout"), 0.0)
    each = {f"train/loss/{name}": value for name, value in losses.items() if name != "network"}
    return {"train/loss": total, **each, "train/acc": means["acc"]}


def step_outputs(result: SweepResult, target: Target) -> dict[str, Any]:
    """The `outputs` of a training step that callbacks get; the loss is 0 where no block learned."""
    losses = [loss for name, loss in result.losses.items() if name != "readout"] or [*result.losses.values()]
    return {
        "loss": torch.stack(losses).sum() if losses else torch.zeros(()),
        "losses": result.losses,
        "goodness": result.goodness,
        "target": plain(target),
    }
