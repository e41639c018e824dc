"""A picture of what the network learns from."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_ff.batch import unpack
from lightning_ff.callbacks.base import pair_learner
from lightning_ff.configure import fallback_index
from lightning_ff.figures import pairs
from lightning_ff.loggers import log_figure


class NegativePictures(Callback):
    """Log positives above their negatives once, from the first batch after the start.

    Args:
        count: Number of pairs, at least 1.

    Raises:
        ValueError: count below 1.
    """

    def __init__(self, count: int = 10) -> None:
        if count < 1:
            raise ValueError(f"count={count}: must be at least 1")
        self.count = count
        self.done = False

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pair_learner(pl_module, self)
        self.done = False

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.done:
            return
        self.done = True
        learner = pair_learner(pl_module, self)
        image, label, index = unpack(batch)
        learner.batch_number = batch_idx
        assert learner.negatives is not None
        with torch.no_grad():
            positive = learner.negatives.positives(image, label, learner)
            negative = learner.negatives(
                image, label, fallback_index(learner, image) if index is None else index, learner
            )
        shape = learner.network.input_shape
        log_figure(trainer, "negatives", pairs(positive[: self.count], negative[: self.count], shape))
