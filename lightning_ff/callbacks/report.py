"""Prints the paths of a run's results at its end."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from typing_extensions import override

from lightning_ff._lightning import is_trial
from lightning_ff.loggers import logger_folder

_FILES = {"metrics": "metrics.csv", "pictures": "figures", "configuration": "config.yaml"}


class RunReport(Callback):
    """Print the accuracy and the paths of checkpoints, metrics and pictures after fitting and testing."""

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not is_trial(trainer):
            _print({**_checkpoints(trainer), **_results(trainer)})

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        if trainer.is_global_zero and "test/acc" in metrics:
            tested = {"tested checkpoint": str(trainer.ckpt_path)} if trainer.ckpt_path else _checkpoints(trainer)
            if not trainer.ckpt_path and not trainer.global_step:
                tested = {"tested weights": "untrained: no ckpt_path was given"}
            _print({"test accuracy": f"{float(metrics['test/acc']):.4f}", **tested, **_results(trainer)})


def _checkpoints(trainer: Trainer) -> dict[str, str]:
    """The last and the best checkpoint; the best of a callback without a monitor is the last one."""
    last = best = ""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            last = callback.last_model_path or last
            if callback.monitor is None:
                last = last or callback.best_model_path
            else:
                best = best or callback.best_model_path
    return {name: path for name, path in (("last checkpoint", last), ("best checkpoint", best)) if path}


def _results(trainer: Trainer) -> dict[str, str]:
    """Paths of metrics, pictures and configuration, of the first logger that has them, and of viewers' logs."""
    found = {}
    folders = [folder for logger in trainer.loggers if (folder := logger_folder(logger)) is not None]
    for name, file in _FILES.items():
        existing = [folder / file for folder in folders if (folder / file).exists()]
        if existing:
            found[name] = str(existing[0])
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            found["TensorBoard"] = logger.log_dir
        elif isinstance(logger, WandbLogger):
            found["W&B run"] = str(Path(logger.experiment.dir).parent)
    return found


def _print(rows: dict[str, str]) -> None:
    width = max(map(len, rows), default=0)
    print("\n".join(f"{name.ljust(width)}  {_short(value)}" for name, value in rows.items()), flush=True)


def _short(path: str) -> str:
    folder = Path.cwd()
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path
