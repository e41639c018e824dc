"""Helpers of several callbacks."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule

from lightning_ff.learner import LocalLearner


def pair_learner(module: LightningModule, callback: Callback) -> LocalLearner:
    """The learner, after a check that it has negatives.

    Raises:
        TypeError: the module is not a learner in pair mode.
    """
    if isinstance(module, LocalLearner) and module.network.mode == "pair":
        return module
    found = "class mode, which has no negatives" if isinstance(module, LocalLearner) else type(module).__name__
    raise TypeError(f"{type(callback).__name__} works on a LocalLearner in pair mode, not on {found}: remove it")
