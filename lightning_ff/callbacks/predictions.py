"""Predictions as a file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_ff._lightning import is_trial
from lightning_ff.loggers import run_folder


class PredictionWriter(Callback):
    """Write every prediction as a row of a CSV file: index, label and one score per class.

    With several loaders, a first column has the number of the loader, from 0. Samples without an index are numbered
    loader by loader.

    Args:
        path: The file; None is `predictions.csv` in the run's folder. Several processes that share the samples
            write one file each, with the rank in its name.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._folder = Path()
        self._rows: dict[int, int] = {}

    def file(self, trainer: Trainer) -> Path:
        """The file this process writes."""
        file = Path(self.path) if self.path else self._folder / "predictions.csv"
        return file if _shares(trainer) == 1 else file.with_stem(f"{file.stem}-{_share(trainer)}")

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            self._folder = trainer.strategy.broadcast(run_folder(trainer) or Path(trainer.default_root_dir))
            self._rows = {}

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if is_trial(trainer) and self.path is None:
            return
        if trainer.global_rank % (trainer.world_size // _shares(trainer)):  # the first of a pipeline writes
            return
        file, scores = self.file(trainer), outputs["scores"].float().cpu().tolist()
        labels = outputs["label"].tolist()
        first = self._rows.get(dataloader_idx, 0)
        index = outputs["index"].tolist() if "index" in outputs else range(first, first + len(labels))
        loader = {"loader": dataloader_idx} if len(trainer.num_predict_batches) > 1 else {}
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a" if self._rows else "w", newline="") as out:
            writer = csv.writer(out)
            if not self._rows:
                writer.writerow([*loader, "index", "label", *(f"score{c}" for c in range(len(scores[0])))])
            rows = zip(index, labels, scores, strict=True)
            writer.writerows([*loader.values(), i, label, *row] for i, label, row in rows)
        self._rows[dataloader_idx] = first + len(labels)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self._rows:
            print(f"predictions  {self.file(trainer)}", flush=True)


def _shares(trainer: Trainer) -> int:
    """Into how many parts the samples are divided."""
    return int((trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1))


def _share(trainer: Trainer) -> int:
    """Which of these parts this process has."""
    return int((trainer.distributed_sampler_kwargs or {}).get("rank", 0))
