"""What `--ckpt_path=last` stands for where another process has trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


def last_checkpoint(trainer: Trainer) -> str:
    """Path of the last checkpoint of this run's folder, or else of the only run beside it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: several runs have one.
    """
    keepers = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    given = [str(keeper.dirpath) for keeper in keepers if keeper.dirpath]
    root, version = _run_root(trainer)
    if any("://" in place for place in (root, *given)):
        return "last"  # not on this machine: Lightning looks there, and warns where there is none
    own, others = dict.fromkeys(Path(place) for place in given), list[Path]()
    if len(given) < len(keepers):
        own[Path(root, version, "checkpoints")] = None
        others = list(Path(root).glob("*/checkpoints"))
    found = _newest(own) or [last for run in others for last in _newest([run])]
    if not found:
        looked = f"{', '.join(map(str, own))}{' or a run beside it' if len(given) < len(keepers) else ''}"
        raise FileNotFoundError(f"ckpt_path='last': no last.ckpt in {looked}: fit first, or give its path")
    if len(found) > 1:
        newest = max(found, key=_written)
        raise ValueError(
            f"ckpt_path='last': {len(found)} runs in {root} have a last.ckpt, the newest is {newest}: give the path of "
            "the one that is meant"
        )
    return str(found[0])


def _run_root(trainer: Trainer) -> tuple[str, str]:
    """Folder of all runs of the first logger, and this run's name in it, as Lightning puts checkpoints there."""
    if not trainer.loggers:
        return str(trainer.default_root_dir), ""
    logger = trainer.loggers[0]
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return f"{logger.save_dir or trainer.default_root_dir}/{logger.name}", version


def _newest(folders: Iterable[Path]) -> list[Path]:
    """The last checkpoint that was written latest, if there is one."""
    found = [file for folder in folders for file in folder.glob("last*.ckpt")]
    return [max(found, key=_written)] if found else []


def _written(file: Path) -> float:
    return file.stat().st_mtime
