"""Base of callbacks that measure representations in validations and tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_ff.batch import unpack
from lightning_ff.callbacks.representations import (
    LabelPolicy,
    Recorder,
    Units,
    labelled,
    layers_of,
    own_pass,
    represent,
    scans,
)
from lightning_ff.learner import LocalLearner
from lightning_ff.validate import check_int, check_type


class RepresentationCallback(Callback, ABC):
    """Records activations of layers in validations and tests; a subclass defines what is done with them.

    Args:
        layers: Paths of modules; None is every block of a learner but a classifier.
        every_n_epochs: Epochs between validations that are measured; 0 measures none. Tests always are.
        units: "all" values of a layer are its units, or its "channels", averaged over positions.
    """

    needs_all_blocks = True

    def __init__(self, layers: list[str] | None, every_n_epochs: int, units: Units) -> None:
        if layers is not None:
            check_type("layers", layers, (list, tuple), "give paths of modules, such as ['layer1', 'layer2'], or None")
            for i, path in enumerate(layers):
                check_type(f"layers[{i}]", path, str, "give the path of a module, such as 'layer1.0'")
            if not layers:
                raise ValueError("layers=[]: name at least one module, or None for every block of a learner")
        if units not in ("all", "channels"):
            raise ValueError(f"units={units!r}: choose 'all' or 'channels'")
        check_int("every_n_epochs", every_n_epochs)
        if every_n_epochs < 0:
            raise ValueError(f"every_n_epochs={every_n_epochs}: must be 0 or more, 0 for never")
        self.layers = layers
        self.every_n_epochs = every_n_epochs
        self.units = units
        self.recorder: Recorder | None = None
        self._num_samples = 0

    label_policy: LabelPolicy = "true"
    shows_labels = True  # in pair mode the samples' own; False if a subclass overrides `encoded` with other labels

    @abstractmethod
    def see(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        found: dict[str, Tensor],
        label: Tensor,
        index: Tensor,
    ) -> None:
        """Process activations `(N, U)` by layer, classes `(N,)` and sample indices `(N,)` of a batch."""

    @abstractmethod
    def end(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called after all batches of a validation ("val") or test."""

    @abstractmethod
    def begin(self) -> None:
        """Reset the state, before a validation or test."""

    def answers(self, label: Tensor) -> Tensor:
        """Predicted classes of the batch `(N,)`."""
        return label

    def encoded(self, learner: LocalLearner, image: Tensor, label: Tensor) -> Tensor:
        """Inputs of a learner in pair mode: images with labels `(N, ...)`."""
        return labelled(learner, image, label, self.answers(label), self.label_policy)

    def more(self, image: Tensor) -> dict[str, Tensor]:
        """Activations besides those of layers, `(N, U)` by name."""
        return {}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict" and self.recorder is None:
            self.recorder = Recorder(layers_of(pl_module, self.layers), self.units)
            self.begin()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove()

    def _remove(self) -> None:
        if self.recorder is not None:
            self.recorder.remove()
            self.recorder = None
        self._reset()

    def _reset(self) -> None:
        self._num_samples = 0
        self.begin()

    def _measures(self, trainer: Trainer) -> bool:
        """Whether this validation or test is measured."""
        if self.recorder is None or trainer.sanity_checking:
            return False
        fits = trainer.state.fn == "fit"
        return not fits or (self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0)

    def _start(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        if not self._measures(trainer):
            return
        assert self.recorder is not None
        label = unpack(batch)[1]
        if self.shows_labels and scans(pl_module, self.label_policy):
            self.recorder.start_scan(label, pl_module.num_classes)  # type: ignore[arg-type]
        elif not own_pass(pl_module):
            self.recorder.start(len(label))

    def _stop(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        if not self._measures(trainer):
            return
        assert self.recorder is not None
        image, label, index = unpack(batch)
        module: Any = pl_module
        found = self.recorder.stop()
        if own_pass(pl_module) and not all(len(found.get(name, ())) == len(label) for name in self.recorder.layers):
            found = represent(module, self.recorder, self.encoded(module, image, label))
        if index is None:
            index = self._fallback_index(trainer, label)
        self.see(trainer, pl_module, {**self.more(image), **found}, label, index)

    def _fallback_index(self, trainer: Trainer, label: Tensor) -> Tensor:
        """Indices of samples in the order of the loader, which evaluation does not shuffle."""
        index = self._num_samples + torch.arange(len(label), device=label.device)
        self._num_samples += len(label)
        return index * trainer.world_size + trainer.global_rank

    def _end(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._measures(trainer):
            self.end(trainer, pl_module, stage)
            self._reset()

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._start(trainer, pl_module, batch)

    @override
    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._start(trainer, pl_module, batch)

    @override
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._stop(trainer, pl_module, args[1])

    @override
    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._stop(trainer, pl_module, args[1])

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(trainer, pl_module, "val")

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(trainer, pl_module, "test")
