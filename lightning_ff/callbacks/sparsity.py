"""Sparsity of activations, during training and at every validation."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_ff._lightning import batches_seen, ends_interval
from lightning_ff.batch import unpack
from lightning_ff.callbacks.representations import Units
from lightning_ff.callbacks.watching import RepresentationCallback
from lightning_ff.metrics.sparsity import active_fraction, hoyer_sparsity, treves_rolls_sparsity
from lightning_ff.validate import check_int


class SparsityMonitor(RepresentationCallback):
    """Log the sparsity of each layer: Hoyer's and Treves and Rolls' measures, the share of active units, dead units.

    Keys: `train/sparsity/block00`, `train/treves_rolls/block00`, `train/active_fraction/block00` for positives of the
    batch (class mode: all its images), and the same with `val/` and `test/` over all samples, in pair mode with their
    own label written in. `.../dead_units/block00` counts the units that were active for no sample since the last
    value. Sums are kept on the device, activations are not.

    Args:
        layers: Paths of modules; None is every block of a learner but a classifier.
        every_n_steps: Training batches between values; None is the Trainer's `log_every_n_steps`, 0 logs none.
        every_n_epochs: Epochs between validations that are measured; 0 measures none. Tests always are.
        units: "all" values of a layer are its units, or its "channels", averaged over positions.

    Raises:
        ValueError: an argument is out of range, or a path names no module.
        TypeError: an argument is not of the annotated type.
    """

    def __init__(
        self,
        layers: list[str] | None = None,
        every_n_steps: int | None = None,
        every_n_epochs: int = 1,
        units: Units = "all",
    ) -> None:
        super().__init__(layers, every_n_epochs, units)
        if every_n_steps is not None:
            check_int("every_n_steps", every_n_steps, "give a whole number, or None")
            if every_n_steps < 0:
                raise ValueError(f"every_n_steps={every_n_steps}: must be 0 or more, 0 for never, or None")
        self.every_n_steps = every_n_steps
        self.begin()

    @override
    def begin(self) -> None:
        self._sums: dict[str, dict[str, Tensor]] = {}

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.recorder is not None and ends_interval(trainer, self.every_n_steps):
            self.recorder.start(len(unpack(batch)[1]))

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.recorder is None or not ends_interval(trainer, self.every_n_steps):
            return
        for name, h in self.recorder.stop().items():
            self._add(name, h)
        values = self._values("train")
        pl_module.log_dict(values, logger=self.every_n_steps is None)
        if self.every_n_steps is not None:  # loggers get what is logged only when the Trainer logs
            for logger in trainer.loggers:
                logger.log_metrics({key: float(value) for key, value in values.items()}, batches_seen(trainer))

    @override
    def see(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        found: dict[str, Tensor],
        label: Tensor,
        index: Tensor,
    ) -> None:
        for name, h in found.items():
            self._add(name, h)

    @override
    def end(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.log_dict(
            self._values(stage, trainer), sync_dist=True
        )  # equal already, but Lightning warns without sync_dist

    def _add(self, name: str, h: Tensor) -> None:
        """Add activations `(N, U)` to the sums of a layer."""
        if name not in self._sums:
            self._sums[name] = {"units": torch.zeros(h.shape[1], device=h.device)}
        hoyer = hoyer_sparsity(h)
        new = {
            "sparsity": hoyer.nansum(),
            "treves_rolls": treves_rolls_sparsity(h).nansum(),
            "active_fraction": active_fraction(h).sum(),
            "units": (h > 0).sum(0),
            "valid": (~hoyer.isnan()).sum(),
            "count": torch.tensor(len(h), device=h.device),
        }
        kept = self._sums[name]
        self._sums[name] = {key: kept[key] + value if key in kept else value for key, value in new.items()}

    def _values(self, stage: str, trainer: Trainer | None = None) -> dict[str, Tensor]:
        """Means of the sums, over all processes if a Trainer is given; resets the sums."""
        values = {}
        for name, sums in self._sums.items():
            if trainer is not None:
                sums = {key: trainer.strategy.reduce(value, reduce_op="sum") for key, value in sums.items()}
            values[f"{stage}/sparsity/{name}"] = sums["sparsity"] / sums["valid"]
            values[f"{stage}/treves_rolls/{name}"] = sums["treves_rolls"] / sums["valid"]
            values[f"{stage}/active_fraction/{name}"] = sums["active_fraction"] / sums["count"]
            values[f"{stage}/dead_units/{name}"] = (sums["units"] == 0).sum().float()
        self.begin()
        return values
