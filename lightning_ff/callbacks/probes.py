"""Linear probes of the classes in each layer, at the end of validations and tests."""

from __future__ import annotations

import csv

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_ff._lightning import callbacks_of
from lightning_ff.callbacks.ensemble_files import class_names
from lightning_ff.callbacks.representations import Units
from lightning_ff.callbacks.watching import RepresentationCallback
from lightning_ff.learner import LocalLearner
from lightning_ff.loggers import run_folder
from lightning_ff.metrics import ClassSamples, linear_probe, one_versus_rest_probe
from lightning_ff.validate import check_int

INPUT = "input"


class ProbeMonitor(RepresentationCallback):
    """Fit logistic regressions on the activations of each layer, and on the input, and log their accuracy.

    The first process fits them, cross-validated, on samples selected by index, classified correctly or not; see
    :func:`lightning_ff.metrics.linear_probe`. In pair mode images get the neutral label: with their own a probe would
    read the label, not the class.

    Keys, with "val" or "test" for `<stage>`: `<stage>/probe/<layer>`, accuracy over all classes, and, if classes were
    held out of training, `<stage>/probe_unseen/<layer>`, balanced accuracy of such a class against all others, averaged
    over these classes. `<layer>` is `input` for the image itself. `representations/<stage>_probes.csv` in the run's
    folder has the recall of every class.

    Args:
        layers: Paths of modules; None is every block of a learner but a classifier.
        samples: Samples of each class.
        folds: Number of cross-validation folds; each is predicted by a fit on the others.
        every_n_epochs: Epochs between validations that are measured; 0 measures none. Tests always are.
        units: "all" values of a layer are its units, or its "channels", averaged over positions.

    Raises:
        ValueError: an argument is out of range, or a path names no module.
        TypeError: an argument is not of the annotated type.
    """

    shows_labels = False

    def __init__(
        self,
        layers: list[str] | None = None,
        samples: int = 200,
        folds: int = 5,
        every_n_epochs: int = 0,
        units: Units = "all",
    ) -> None:
        super().__init__(layers, every_n_epochs, units)
        check_int("folds", folds)
        if folds < 2:
            raise ValueError(f"folds={folds}: one is left out of every fit, so give at least 2")
        check_int("samples", samples)
        if samples < folds:
            raise ValueError(f"samples={samples}: every one of folds={folds} needs one at least")
        self.samples = samples
        self.folds = folds
        self.begin()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        monitors = [each for each in callbacks_of(trainer) if isinstance(each, ProbeMonitor)]
        if len(monitors) > 1:
            raise ValueError(f"{len(monitors)} ProbeMonitor would write the same values and files: give one")

    @override
    def begin(self) -> None:
        self._kept: dict[str, ClassSamples] = {}

    @override
    def encoded(self, learner: LocalLearner, image: Tensor, label: Tensor) -> Tensor:
        return learner.labels.neutral(image)

    @override
    def more(self, image: Tensor) -> dict[str, Tensor]:
        return {INPUT: image.flatten(1)}

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
            if name not in self._kept:
                classes = len(class_names(trainer, pl_module))
                self._kept[name] = ClassSamples(classes, h.shape[1], self.samples).to(h.device)
            self._kept[name].update(h, label, index)

    @override
    def end(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        rows: dict[str, dict[str, Tensor]] = {}
        for name, samples in self._kept.items():
            kept = {key: values.cpu() for key, values in samples.compute().items()}  # of all processes
            if trainer.is_global_zero:
                rows[name] = self._fit_probes(pl_module, kept, samples.num_classes)
        rows = trainer.strategy.broadcast(rows)
        for name, row in rows.items():
            values = {"probe": row["accuracy"], "probe_unseen": row["unseen"]}
            pl_module.log_dict(
                {f"{stage}/{key}/{name}": value for key, value in values.items() if value == value}, sync_dist=True
            )
        if trainer.is_global_zero and rows:
            self._write(trainer, stage, rows, class_names(trainer, pl_module))

    def _fit_probes(self, module: LightningModule, kept: dict[str, Tensor], classes: int) -> dict[str, Tensor]:
        """Accuracy, recall by class, and accuracy on held-out classes, NaN if there are none."""
        h, label = kept["h"], kept["label"]
        found = linear_probe(h, label, classes, self.folds)
        held_out = module.held_out if isinstance(module, LocalLearner) else ()
        balanced = [one_versus_rest_probe(h, label, c, self.folds)["balanced_accuracy"] for c in held_out]
        return {**found, "unseen": torch.stack(balanced).nanmean() if balanced else torch.tensor(torch.nan)}

    def _write(self, trainer: Trainer, stage: str, rows: dict[str, dict[str, Tensor]], classes: list[str]) -> None:
        folder = run_folder(trainer)
        if folder is None:
            return
        file = folder / "representations" / f"{stage}_probes.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as opened:
            table = csv.writer(opened)
            table.writerow(["layer", "accuracy", *(f"recall {name}" for name in classes)])
            for name, row in rows.items():
                table.writerow([name, row["accuracy"].item(), *row["recall"].tolist()])
        partial.replace(file)
