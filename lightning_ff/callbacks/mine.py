"""Hard negatives once the network is good enough for its scores to mean something."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_ff._lightning import state_key
from lightning_ff.callbacks.base import pair_learner
from lightning_ff.negatives import HardLabel, Mixture


class MineNegatives(Callback):
    """Mix hard negatives into the learner's own from the moment a validation metric has reached a level.

    The decision is kept in the checkpoint, so a resumed run agrees.

    Args:
        fraction: Share of the batches with hard negatives from then on.
        above: Level of the metric.
        monitor: Name of the metric.
        seed: Seed of the draws.

    Raises:
        ValueError: fraction outside (0, 1].
    """

    def __init__(self, fraction: float = 0.25, above: float = 0.5, monitor: str = "val/acc", seed: int = 0) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction={fraction}: must lie in (0, 1]")
        self.fraction = fraction
        self.above = above
        self.monitor = monitor
        self.seed = seed
        self.mining = False
        self._mixture: Mixture | None = None

    @property
    def state_key(self) -> str:
        return state_key(self, monitor=self.monitor, seed=self.seed)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            pair_learner(pl_module, self)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install(pl_module)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._install(pl_module)  # anew where another callback has put a sampler in its place

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or self.mining:
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ValueError(f"MineNegatives(monitor={self.monitor!r}) is not logged: choose one of {known}")
        # installed with the next batch: now all modules are in eval mode, and a wrapped sampler would stay so
        self.mining = float(trainer.callback_metrics[self.monitor]) >= self.above

    def _install(self, pl_module: LightningModule) -> None:
        learner = pair_learner(pl_module, self)
        assert learner.negatives is not None
        if not self.mining or any(sampler is self._mixture for sampler in learner.negatives.modules()):
            return
        hard = HardLabel(self.seed, fraction=1.0, start_epoch=0)
        self._mixture = Mixture([learner.negatives, hard], [1 - self.fraction, self.fraction], self.seed)
        learner.negatives = self._mixture.to(learner.device)
        rank_zero_info(f"negatives: hard ones on a share of {self.fraction} of the batches from now on")

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"mining": self.mining}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mining = state_dict["mining"]
