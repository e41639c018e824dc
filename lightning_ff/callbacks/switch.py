"""Another sampler from an epoch on."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_ff.callbacks.base import pair_learner
from lightning_ff.negatives import NegativeSampler


class SwitchNegatives(Callback):
    """Install negative samplers by epoch; what is installed follows from the epoch, so a resumed run agrees.

    Args:
        samplers: First epoch of each sampler to the sampler; epoch 0 replaces the learner's own from the start.

    Raises:
        ValueError: no sampler, or a negative epoch.
    """

    def __init__(self, samplers: dict[int, NegativeSampler]) -> None:
        if not samplers or min(samplers) < 0:
            raise ValueError(f"samplers={samplers}: give samplers by their first epoch, 0 or later")
        self.samplers = samplers
        self._installed: NegativeSampler | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            pair_learner(pl_module, self)
            self._installed = None
            self._install(pl_module, trainer.current_epoch)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install(pl_module, trainer.current_epoch)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install(pl_module, trainer.current_epoch)

    def _install(self, pl_module: LightningModule, epoch: int) -> None:
        begun = [first for first in self.samplers if first <= epoch]
        due = self.samplers[max(begun)] if begun else None
        if due is self._installed:  # another callback may have wrapped it since
            return
        assert due is not None
        learner = pair_learner(pl_module, self)
        self._installed = learner.negatives = due.to(learner.device)
        rank_zero_info(f"negatives from epoch {epoch}: {due}")
