"""Redrawing of a fixed pool of negatives."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_ff.callbacks.base import pair_learner
from lightning_ff.negatives import FixedPool
from lightning_ff.validate import check_int


class RefreshNegatives(Callback):
    """Redraw the learner's :class:`~lightning_ff.negatives.FixedPool` every few epochs.

    The draw depends on the epoch alone, so a resumed run is equal.

    Args:
        every_n_epochs: Epochs between draws, at least 1.

    Raises:
        ValueError: every_n_epochs below 1, or the learner's sampler is not a fixed pool.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        check_int("every_n_epochs", every_n_epochs)
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs={every_n_epochs}: must be at least 1")
        self.every_n_epochs = every_n_epochs

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._draw(pl_module, trainer.current_epoch)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(pl_module, trainer.current_epoch)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(pl_module, trainer.current_epoch)

    def _draw(self, pl_module: LightningModule, epoch: int) -> None:
        sampler = pair_learner(pl_module, self).negatives
        assert sampler is not None
        pools = [module for module in sampler.modules() if isinstance(module, FixedPool)]  # in a mixture too
        if not pools:
            raise ValueError(f"RefreshNegatives redraws a FixedPool, not negatives={sampler}: remove it or change that")
        for pool in pools:
            pool.draw = epoch // self.every_n_epochs
