"""One `log_figure` for every logger of the Trainer, and where a run's files lie."""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from lightning_ff._lightning import batches_seen

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def log_figure(trainer: Trainer, key: str, figure: Figure) -> None:
    """Send a picture to every logger: W&B and TensorBoard get an image, all others a PNG file in the run's folder.

    Args:
        trainer: Its loggers and its batch count are used; only rank 0 logs.
        key: Name of the picture; a slash makes a folder.
        figure: A matplotlib figure.
    """
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            send_figure(logger, key, figure, batches_seen(trainer))


@singledispatch
def send_figure(logger: Logger, key: str, figure: Figure, step: int) -> None:
    """Send a picture to one logger; register a function for a logger class of your own.

    Without one, a PNG file is written to `figures/<key>/<step>.png` in the logger's folder, if it has one.
    """
    folder = getattr(logger, "log_dir", None) or logger.save_dir
    if folder:
        path = Path(folder) / "figures" / key / f"{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


@send_figure.register(WandbLogger)
def _(logger: WandbLogger, key: str, figure: Figure, step: int) -> None:
    logger.log_image(key, [figure], step=step)


@send_figure.register(TensorBoardLogger)
def _(logger: TensorBoardLogger, key: str, figure: Figure, step: int) -> None:
    logger.experiment.add_figure(key, figure, step, close=False)


def run_folder(trainer: Trainer) -> Path | None:
    """Where metrics, pictures and configuration of this run lie: the first logger's folder, if there is a logger."""
    if not trainer.loggers:
        return None
    logger = trainer.loggers[0]
    if isinstance(logger, WandbLogger):
        return Path(logger.experiment.dir) if trainer.is_global_zero else None
    folder = logger.log_dir or logger.save_dir
    return Path(folder) if folder else None
