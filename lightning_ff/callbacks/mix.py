"""A mixture of samplers whose weights change over the epochs."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_ff.callbacks.base import pair_learner
from lightning_ff.negatives import Mixture, NegativeSampler, check_sampler, check_weights, load_state
from lightning_ff.validate import check_int


class MixNegatives(Callback):
    """Draw every batch's sampler from a mixture; the weights change linearly from `start` to `end` in `epochs` epochs.

    Weights depend on the epoch alone, and the state of the samplers is saved in checkpoints, so a resumed run is equal.

    Args:
        samplers: The samplers.
        start: Weights in epoch 0.
        end: Weights from epoch `epochs` on; None keeps `start`.
        epochs: Number of epochs from `start` to `end`.
        seed: Seed of the draw between samplers.

    Raises:
        ValueError: lengths differ, weights are negative or all 0, epochs is below 1, or, at set-up, a sampler does not
            fit the learner.
        TypeError: an argument is not of the annotated type.
    """

    def __init__(
        self,
        samplers: list[NegativeSampler],
        start: list[float],
        end: list[float] | None = None,
        epochs: int = 1,
        seed: int = 0,
    ) -> None:
        check_int("epochs", epochs)
        if epochs < 1:
            raise ValueError(f"epochs={epochs}: must be at least 1")
        self.start = start
        self.end = start if end is None else end
        check_weights("start", start, samplers)
        check_weights("end", self.end, samplers)
        self.epochs = epochs
        self.mixture = Mixture(samplers, start, seed)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            learner = pair_learner(pl_module, self)
            check_sampler(self.mixture, learner.network)
            learner.install_negatives(self.mixture)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._set_weights(trainer.current_epoch)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._set_weights(trainer.current_epoch)

    def _set_weights(self, epoch: int) -> None:
        share = min(1.0, epoch / self.epochs)
        self.mixture.weights = [(1 - share) * a + share * b for a, b in zip(self.start, self.end, strict=True)]

    @override
    def state_dict(self) -> dict[str, Any]:
        state = self.mixture.state_dict()
        return {"mixture": state} if state else {}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        load_state(self.mixture, state_dict["mixture"])
