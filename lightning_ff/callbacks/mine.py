"""Hard negatives once a validation metric has reached a threshold."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from lightning_ff._lightning import callbacks_of, state_key
from lightning_ff.callbacks.base import pair_learner
from lightning_ff.labels import Unlabelled
from lightning_ff.learner import LocalLearner
from lightning_ff.negatives import HardLabel, Mixture
from lightning_ff.validate import check_int, check_number, check_type


class MineNegatives(Callback):
    """Mix hard negatives into the learner's own once a validation metric has reached a threshold.

    The decision is saved in checkpoints, so a resumed run continues with it; any other fit starts without hard
    negatives. Several of these callbacks can be used together: each mixes its hard negatives into the sampler that the
    ones before it have installed.

    Args:
        fraction: Share of the batches with hard negatives from then on.
        above: Threshold of the metric.
        monitor: Name of the metric.
        seed: Seed of the draws.

    Raises:
        ValueError: fraction outside (0, 1], a run without validation, or a learner without labels in its input.
        TypeError: an argument is not of the annotated type.
    """

    needs_all_blocks = True

    def __init__(self, fraction: float = 0.25, above: float = 0.5, monitor: str = "val/acc", seed: int = 0) -> None:
        check_number("fraction", fraction, "must lie in (0, 1]", above=0)
        if fraction > 1:
            raise ValueError(f"fraction={fraction}: must lie in (0, 1]")
        check_number("above", above, "give the level of the metric")
        check_type("monitor", monitor, str, "give the name of a metric, such as 'val/acc'")
        check_int("seed", seed)
        self.fraction = fraction
        self.above = above
        self.monitor = monitor
        self.seed = seed
        self.mining = False
        self.since = 0
        self._validated = False
        self._mixture: Mixture | None = None

    @property
    def state_key(self) -> str:
        return state_key(self, monitor=self.monitor, seed=self.seed)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            if isinstance(pair_learner(pl_module, self).labels, Unlabelled):
                raise ValueError(
                    f"MineNegatives(fraction={self.fraction}) mixes in images with hard labels, and labels=Unlabelled "
                    "writes none, so that they would equal the positives: remove it, or use a label encoding"
                )
            self.mining, self._validated, self._mixture = False, False, None
            if not trainer.enable_validation:
                raise self._no_validation()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.val_dataloaders is not None and not sum(trainer.num_val_batches):
            raise self._no_validation()

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._install(trainer, pl_module)  # again if another callback has replaced the sampler

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or self.mining:
            return
        self._validated = True
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ValueError(f"MineNegatives(monitor={self.monitor!r}) is not logged: choose one of {known}")
        self.mining = float(trainer.callback_metrics[self.monitor]) >= self.above  # installed before the next batch
        self.since = trainer.global_step

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.mining and not self._validated:
            rank_zero_warn(
                f"MineNegatives(monitor={self.monitor!r}) mined nothing: no validation ran before the end of training"
            )

    def _no_validation(self) -> ValueError:
        return ValueError(
            f"MineNegatives(monitor={self.monitor!r}) waits for a validation metric, and this run has none: give "
            "validation data, or take HardLabel(start_epoch=...), which waits for an epoch"
        )

    def _install(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap the learner's sampler for all callbacks that mine, in the order in which they started."""
        learner = pair_learner(pl_module, self)
        every = [each for each in callbacks_of(trainer) if isinstance(each, MineNegatives) and each.mining]
        for each in sorted(every, key=lambda each: each.since):
            each._wrap(learner)

    def _wrap(self, learner: LocalLearner) -> None:
        assert learner.negatives is not None
        if any(sampler is self._mixture for sampler in learner.negatives.modules()):
            return
        hard = HardLabel(self.seed, fraction=1.0, start_epoch=0)
        self._mixture = Mixture([learner.negatives, hard], [1 - self.fraction, self.fraction], self.seed)
        learner.install_negatives(self._mixture)
        rank_zero_info(f"negatives: hard negatives in a share of {self.fraction} of the batches from now on")

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"mining": self.mining, "since": self.since}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mining, self.since = state_dict["mining"], state_dict["since"]
