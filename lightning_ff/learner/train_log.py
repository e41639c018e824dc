"""Losses of training as sums that stay on the device, read at log intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_ff._lightning import ends_interval
from lightning_ff.sweep import SweepResult
from lightning_ff.sweep.finite import check_losses
from lightning_ff.target import Target, plain


class TrainLog:
    """Mean losses by name, of every log interval, and of epochs without the end of one."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop all losses."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._interval: dict[str, Tensor] = {}  # of epochs that ended before the log interval
        self._batches: dict[str, int] = {}
        self._epoch, self._ends = -1, True

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a batch, scalars on the device."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
            self._counts[name] = self._counts.get(name, 0) + 1

    def is_due(self, trainer: Trainer) -> bool:
        """Whether to log after this batch: at the end of a log interval, and of an epoch that has none."""
        ends = ends_interval(trainer)
        due = ends or (trainer.is_last_batch and self._epoch != trainer.current_epoch)
        if due:
            self._epoch, self._ends = trainer.current_epoch, ends
        return due

    def means(self) -> dict[str, float]:
        """Mean losses of the log interval that ends, or else of the epoch, in one transfer from the device."""
        own = _means(self._sums, self._counts)
        for name, loss in self._sums.items():
            self._interval[name] = self._interval[name] + loss if name in self._interval else loss
            self._batches[name] = self._batches.get(name, 0) + self._counts[name]
        self._sums, self._counts = {}, {}
        if not self._ends:
            return own
        whole = _means(self._interval, self._batches)
        self._interval, self._batches = {}, {}
        return whole

    def check(self) -> None:
        """Check the losses added since the last call of `means`.

        Raises:
            NonFiniteLoss: a loss is not finite.
        """
        for sums in (self._interval, self._sums):
            check_losses({name: float(value) for name, value in sums.items()})


def _means(sums: Mapping[str, Tensor], counts: Mapping[str, int]) -> dict[str, float]:
    if not sums:
        return {}
    means = torch.stack([total / counts[name] for name, total in sums.items()]).tolist()
    return dict(zip(sums, means, strict=True))


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
