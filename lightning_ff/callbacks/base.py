"""What callbacks share."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ff._lightning import batches_seen
from lightning_ff.learner import LocalLearner


def pair_learner(module: LightningModule, callback: Callback) -> LocalLearner:
    """The learner, checked to be one that has negatives.

    Raises:
        TypeError: the module is no learner in pair mode.
    """
    if isinstance(module, LocalLearner) and module.network.mode == "pair":
        return module
    found = "class mode, which has no negatives" if isinstance(module, LocalLearner) else type(module).__name__
    raise TypeError(f"{type(callback).__name__} works on a LocalLearner in pair mode, not on {found}: remove it")


def logs_now(trainer: Trainer, every_n_steps: int | None) -> bool:
    """Whether this batch ends an interval; None is the Trainer's `log_every_n_steps`."""
    every = trainer.log_every_n_steps if every_n_steps is None else every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (batches_seen(trainer) + 1) % every == 0
