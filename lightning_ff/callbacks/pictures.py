"""A picture of positives and negatives."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_ff._lightning import state_key
from lightning_ff.batch import unpack
from lightning_ff.callbacks.base import pair_learner
from lightning_ff.figures import pairs
from lightning_ff.learner.checks import check_labels
from lightning_ff.loggers import log_figure
from lightning_ff.negatives import pairs as make_pairs
from lightning_ff.validate import check_int


class NegativePictures(Callback):
    """Log augmented positives above their negatives once, of the first training batch.

    A resumed run does not log them again. The run itself is not changed.

    Args:
        count: Number of pairs, at least 1.

    Raises:
        ValueError: count below 1.
    """

    def __init__(self, count: int = 10) -> None:
        check_int("count", count)
        if count < 1:
            raise ValueError(f"count={count}: must be at least 1")
        self.count = count
        self.done = False

    @property
    def state_key(self) -> str:
        return state_key(self, count=self.count)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
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
        check_labels(label, learner.num_classes, batch_idx)
        # copies and a forked random state: training is the same as without the picture
        sampler, augment = deepcopy((learner.negatives, learner.augment))
        assert sampler is not None
        with torch.no_grad(), torch.random.fork_rng([learner.device] if learner.device.type == "cuda" else []):
            image = image if augment is None else augment(image)
            learner.network.check_input(image)
            sides = make_pairs(sampler, image, label, index, learner.sampler_context)
        positive, negative = (side[: self.count] for side in sides)
        log_figure(trainer, "negatives", pairs(positive, negative, learner.network.input_shape))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.done = state_dict["done"]
