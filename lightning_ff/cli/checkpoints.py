"""The checkpoint of `--ckpt_path=last` or `best`, if another process has trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ff.loggers import version_name


def last_checkpoint(trainer: Trainer, which: Literal["last", "best"] = "last") -> str:
    """Path of the last or best checkpoint in this run's folder, or else of the only other run in the same folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: several runs have one.
    """
    callbacks = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    given = [str(callback.dirpath) for callback in callbacks if callback.dirpath]
    root, version = str(trainer.default_root_dir), ""
    if trainer.loggers:  # folder of all runs of the first, and this run's subfolder: there Lightning writes checkpoints
        logger = trainer.loggers[0]
        root, version = f"{logger.save_dir or root}/{logger.name}", version_name(logger)
    if any("://" in folder for folder in (root, *given)):
        return which  # a remote path: Lightning resolves it, and warns if there is none
    own, others = dict.fromkeys(Path(folder) for folder in given), list[Path]()
    if len(given) < len(callbacks):
        own[Path(root, version, "checkpoints")] = None
        others = list(Path(root).glob("*/checkpoints"))
    found = _newest(own, which) or [file for run in others for file in _newest([run], which)]
    if not found:
        searched = f"{', '.join(map(str, own))}{' or a run beside it' if len(given) < len(callbacks) else ''}"
        raise FileNotFoundError(f"ckpt_path={which!r}: no {which}.ckpt in {searched}: fit first, or give its path")
    if len(found) > 1:
        several = f"{len(found)} runs in {root} have a {which}.ckpt, the newest is {_newest(others, which)[0]}"
        raise ValueError(f"ckpt_path={which!r}: {several}: give the path of the one that is meant")
    return str(found[0])


def _newest(folders: Iterable[Path], which: str) -> list[Path]:
    """The checkpoint with this name and the latest modification time, if there is one."""
    found = [file for folder in folders for file in folder.glob(f"{which}*.ckpt")]
    return [max(found, key=lambda file: file.stat().st_mtime)] if found else []
