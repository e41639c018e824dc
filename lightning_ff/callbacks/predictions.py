"""Predictions as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_ff._lightning import is_trial
from lightning_ff.loggers import run_folder
from lightning_ff.validate import check_text


class PredictionWriter(Callback):
    """Write every prediction as a row of a CSV file: index, predicted class and one score per class.

    With several loaders, the first column is the index of the loader, from 0. Samples without an index are numbered
    loader by loader.

    Args:
        path: The file; None is `predictions.csv` in the run's folder. If several processes split the samples, each
            writes one file, with the rank in its name.
    """

    def __init__(self, path: str | None = None) -> None:
        check_text("path", path, "give the name of a file, or None")
        self.path = path
        self._folder = Path()
        self._rows: dict[int, int] = {}

    def file(self, trainer: Trainer) -> Path:
        """The file that this process writes."""
        file = Path(self.path) if self.path else self._folder / "predictions.csv"
        return file if _num_replicas(trainer) == 1 else file.with_stem(f"{file.stem}-{_replica(trainer)}")

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
        if trainer.global_rank % (
            trainer.world_size // _num_replicas(trainer)
        ):  # the first process of a pipeline writes
            return
        file, scores = self.file(trainer), outputs["scores"].float().cpu().tolist()
        labels = outputs["label"].tolist()
        first = self._rows.get(dataloader_idx, 0)
        index = outputs["index"].tolist() if "index" in outputs else range(first, first + len(labels))
        loader = {"loader": dataloader_idx} if len(trainer.num_predict_batches) > 1 else {}
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a" if self._rows else "w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            if not self._rows:
                writer.writerow([*loader, "index", "prediction", *(f"score{c}" for c in range(len(scores[0])))])
            rows = zip(index, labels, scores, strict=True)
            writer.writerows([*loader.values(), i, label, *row] for i, label, row in rows)
        self._rows[dataloader_idx] = first + len(labels)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self._rows:
            print(f"predictions  {self.file(trainer)}", flush=True)


def _num_replicas(trainer: Trainer) -> int:
    """Number of parts that the samples are split into."""
    return int((trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1))


def _replica(trainer: Trainer) -> int:
    """Index of this process's part."""
    return int((trainer.distributed_sampler_kwargs or {}).get("rank", 0))
