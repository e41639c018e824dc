"""Where a run's results lie, told at its end."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from lightning_ff.loggers import run_folder


class RunReport(Callback):
    """Print, after fitting and testing, the accuracy and where checkpoints, metrics and pictures lie."""

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._print(_results(trainer))

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        if "test/acc" in metrics:
            self._print({"test accuracy": f"{float(metrics['test/acc']):.4f}", **_results(trainer)})

    @rank_zero_only
    def _print(self, rows: dict[str, str]) -> None:
        width = max(map(len, rows), default=0)
        print("\n".join(f"{name.ljust(width)}  {value}" for name, value in rows.items()), flush=True)


def _results(trainer: Trainer) -> dict[str, str]:
    checkpoint = trainer.checkpoint_callback
    folder = run_folder(trainer)
    found = {
        "last checkpoint": getattr(checkpoint, "last_model_path", ""),
        "best checkpoint": getattr(checkpoint, "best_model_path", ""),
    }
    if folder is not None:
        for name, path in (("metrics", "metrics.csv"), ("pictures", "figures"), ("configuration", "config.yaml")):
            found[name] = str(folder / path) if (folder / path).exists() else ""
    return {name: _short(path) for name, path in found.items() if path}


def _short(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
