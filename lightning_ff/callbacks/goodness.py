"""Goodness of positives and negatives during training."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_ff._lightning import batches_seen, ends_interval
from lightning_ff.figures import goodness_histograms
from lightning_ff.learner import LocalLearner
from lightning_ff.learner.strategy import blockwise
from lightning_ff.loggers import log_figure
from lightning_ff.validate import check_int

_KEPT = 20  # batches per picture


def split(goodness: Tensor, target: Tensor | int) -> tuple[Tensor, Tensor]:
    """Goodness of positives and of negatives.

    Args:
        goodness: `(P + M,)` in pair mode, `(N, C)` in class mode.
        target: P, or the labels `(N,)`; the true class is the positive, all others are negatives.

    Returns:
        Both as flat tensors.

    Example::

        >>> split(torch.tensor([3.0, 4.0, 1.0]), 2)
        (tensor([3., 4.]), tensor([1.]))
        >>> split(torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([1]))
        (tensor([6.]), tensor([5., 7.]))
    """
    if isinstance(target, int):
        return goodness[:target], goodness[target:]
    classes = goodness.shape[1]
    others = (target.unsqueeze(1) + torch.arange(1, classes, device=target.device)) % classes
    return goodness.gather(1, target.unsqueeze(1)).flatten(), goodness.gather(1, others.sort(1).values).flatten()


class GoodnessMonitor(Callback):
    """Log each block's mean goodness of positives and negatives, their difference, and histograms as a picture.

    Keys: `goodness/pos/block00`, `goodness/neg/block00`, `goodness/separation/block00`; picture: `goodness`, of
    the last 20 batches with values.

    Args:
        every_n_steps: Batches between values; None is the Trainer's `log_every_n_steps`.
        histogram_every_n_epochs: Epochs between pictures; 0 draws none. One is also drawn at the end of training.

    Raises:
        ValueError: a negative number.
        TypeError: the module is not a learner of this package.
    """

    def __init__(self, every_n_steps: int | None = None, histogram_every_n_epochs: int = 10) -> None:
        if every_n_steps is not None:
            check_int("every_n_steps", every_n_steps, "give a whole number, or None")
        check_int("histogram_every_n_epochs", histogram_every_n_epochs)
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: must be at least 1, or None")
        if histogram_every_n_epochs < 0:
            raise ValueError(f"histogram_every_n_epochs={histogram_every_n_epochs}: must be 0 or more")
        self.every_n_steps = every_n_steps
        self.histogram_every_n_epochs = histogram_every_n_epochs
        self._kept: list[dict[str, tuple[Tensor, Tensor]]] = []

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not isinstance(pl_module, LocalLearner):
            raise TypeError(
                f"GoodnessMonitor logs the goodness of a LocalLearner, not of {type(pl_module).__name__}: remove it"
            )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._kept = []

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not ends_interval(trainer, self.every_n_steps):
            return
        sides = {name: split(g, outputs["target"]) for name, g in outputs["goodness"].items()}
        side_means = [side.mean() for pair in sides.values() for side in pair]
        means = torch.stack(side_means).tolist() if side_means else []
        values = {}
        for i, name in enumerate(sides):
            positive, negative = means[2 * i : 2 * i + 2]
            values[f"goodness/pos/{name}"] = positive
            values[f"goodness/neg/{name}"] = negative
            values[f"goodness/separation/{name}"] = positive - negative
        values = blockwise(trainer.strategy).gather_values(values)
        if not values:
            return
        pl_module.log_dict(values, logger=self.every_n_steps is None)
        if self.every_n_steps is not None:  # loggers get what is logged only when the Trainer logs
            for logger in trainer.loggers:
                logger.log_metrics(values, batches_seen(trainer))
        if self.histogram_every_n_epochs:
            self._kept = [*self._kept, sides][-_KEPT:]

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.histogram_every_n_epochs and (trainer.current_epoch + 1) % self.histogram_every_n_epochs == 0:
            self._draw(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        """Log a picture of the values kept since the last one, if any; only of blocks in the latest batch."""
        values = {
            name: tuple(torch.cat([sides[name][i] for sides in self._kept if name in sides]) for i in (0, 1))
            for name in (self._kept[-1] if self._kept else ())
        }
        values = blockwise(trainer.strategy).gather_values(values)
        if not values:
            return
        log_figure(trainer, "goodness", goodness_histograms(values))  # type: ignore[arg-type]
        self._kept = []
