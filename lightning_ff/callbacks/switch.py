"""Replacement of the negative sampler in given epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from lightning_ff.callbacks.base import pair_learner
from lightning_ff.negatives import NegativeSampler, check_sampler, load_state
from lightning_ff.validate import check_int, check_type


class SwitchNegatives(Callback):
    """Install negative samplers by epoch; the sampler depends on the epoch alone, so a resumed run is equal.

    Buffers and parameters of the samplers are saved in checkpoints.

    Args:
        samplers: First epoch of each sampler to the sampler; epoch 0 replaces the learner's own from the start.

    Raises:
        ValueError: no sampler, a negative epoch, or, at set-up, a sampler that does not fit the learner.
        TypeError: samplers is not a mapping from epochs to samplers.
    """

    def __init__(self, samplers: dict[int, NegativeSampler]) -> None:
        remedy = "give samplers by their first epoch, such as {0: WrongLabel()}"
        check_type("samplers", samplers, Mapping, remedy)
        for epoch, sampler in samplers.items():
            check_int("an epoch in samplers", epoch, remedy)
            check_type(f"samplers[{epoch}]", sampler, NegativeSampler, "give an instance, such as WrongLabel()")
        if not samplers or min(samplers) < 0:
            raise ValueError(f"samplers={samplers}: give samplers by their first epoch, 0 or later")
        self.samplers = samplers
        self._installed: NegativeSampler | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            network = pair_learner(pl_module, self).network
            for sampler in self.samplers.values():
                check_sampler(sampler, network)
            self._installed = None
            self._install(pl_module, trainer.current_epoch)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs = trainer.max_epochs
        beyond = [first for first in self.samplers if epochs is not None and 0 < epochs <= first]
        if beyond:
            rank_zero_warn(f"SwitchNegatives: epochs {beyond} are beyond the run of {epochs} epochs")
        self._install(pl_module, trainer.current_epoch)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install(pl_module, trainer.current_epoch)

    def _install(self, pl_module: LightningModule, epoch: int) -> None:
        started = [first for first in self.samplers if first <= epoch]
        sampler = self.samplers[max(started)] if started else None
        if sampler is self._installed:  # not compared with the learner's: another callback may have wrapped it
            return
        assert sampler is not None
        pair_learner(pl_module, self).install_negatives(sampler)
        self._installed = sampler
        rank_zero_info(f"negatives from epoch {epoch}: {sampler}")

    @override
    def state_dict(self) -> dict[str, Any]:
        state = {epoch: sampler.state_dict() for epoch, sampler in self.samplers.items()}
        return {"samplers": state} if any(state.values()) else {}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for epoch, state in state_dict["samplers"].items():
            if epoch in self.samplers:  # a resumed run may have other epochs
                load_state(self.samplers[epoch], state)
