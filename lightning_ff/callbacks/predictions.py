"""Predictions as a file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from typing_extensions import override

from lightning_ff.loggers import run_folder


class PredictionWriter(BasePredictionWriter):
    """Write every prediction as a row of a CSV file: index, label and one score per class.

    Args:
        path: The file; None is `predictions.csv` in the run's folder. Several processes write one file each.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__(write_interval="batch")
        self.path = path
        self._rows = 0

    def file(self, trainer: Trainer) -> Path:
        """The file this process writes."""
        folder = run_folder(trainer) or Path(trainer.default_root_dir)
        file = Path(self.path) if self.path else folder / "predictions.csv"
        return file if trainer.world_size == 1 else file.with_stem(f"{file.stem}-{trainer.global_rank}")

    @override
    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        if batch_idx == 0 and dataloader_idx == 0:
            self._rows = 0
        file, scores = self.file(trainer), prediction["scores"].float().cpu().tolist()
        labels = prediction["label"].tolist()
        index = prediction["index"].tolist() if "index" in prediction else range(self._rows, self._rows + len(labels))
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a" if self._rows else "w", newline="") as out:
            writer = csv.writer(out)
            if not self._rows:
                writer.writerow(["index", "label", *(f"score{c}" for c in range(len(scores[0])))])
            writer.writerows([i, label, *row] for i, label, row in zip(index, labels, scores, strict=True))
        self._rows += len(labels)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self._rows:
            print(f"predictions  {self.file(trainer)}", flush=True)
