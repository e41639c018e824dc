"""`log_figure` for every logger of the Trainer, and the folder of a run's files."""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from lightning_ff._lightning import batches_seen
from lightning_ff.figures.base import Figure


def log_figure(trainer: Trainer, key: str, figure: Figure) -> None:
    """Send a picture to every logger: W&B and TensorBoard get an image, all others a PNG file in the run's folder.

    Args:
        trainer: Trainer with the loggers and the count of batches; only rank 0 logs.
        key: Name of the picture; a slash separates folders.
        figure: A matplotlib figure.
    """
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            send_figure(logger, key, figure, batches_seen(trainer))


@singledispatch
def send_figure(logger: Logger, key: str, figure: Figure, step: int) -> None:
    """Send a picture to one logger; register a function for a custom logger class.

    By default, a PNG file is written to `figures/<key>/<step>.png` in the logger's folder, if it has one.
    """
    if folder := logger_folder(logger):
        path = folder / "figures" / key / f"{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, pil_kwargs={"compress_level": 3})  # 10 % larger, in 2/3 of the time


@send_figure.register(WandbLogger)
def _(logger: WandbLogger, key: str, figure: Figure, step: int) -> None:
    from matplotlib import pyplot  # noqa: F401  wandb reads this attribute of matplotlib before it accepts a figure

    logger.log_image(key, [figure], step=step)


@send_figure.register(TensorBoardLogger)
def _(logger: TensorBoardLogger, key: str, figure: Figure, step: int) -> None:
    logger.experiment.add_figure(key, figure, step, close=False)


def run_folder(trainer: Trainer) -> Path | None:
    """Folder of checkpoints, predictions and configuration of a run: that of its first logger, if it has a logger."""
    return logger_folder(trainer.loggers[0]) if trainer.loggers else None


def logger_folder(logger: Logger) -> Path | None:
    """A logger's folder for this run; if it has none, the one where Lightning writes checkpoints."""
    if logger.log_dir:
        return Path(logger.log_dir)
    return Path(logger.save_dir, str(logger.name), version_name(logger)) if logger.save_dir else None


def version_name(logger: Logger) -> str:
    """Name of a logger's folder for this run, as Lightning names it."""
    return logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
