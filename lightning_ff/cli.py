"""`lightning-ff fit | validate | test | predict`: LightningCLI over every learner and data module here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger
from typing_extensions import override

import lightning_ff  # noqa: F401  short class names resolve to what has been imported
import lightning_ff.data
from lightning_ff.callbacks import PredictionWriter, RunReport
from lightning_ff.learner import LocalLearner
from lightning_ff.loggers import run_folder


class SaveConfig(SaveConfigCallback):
    """Write the run's configuration into its folder, and into the config of a W&B run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, save_to_log_dir=False)

    @override
    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = run_folder(trainer)
        text = self.parser.dump(self.config, skip_none=False)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            Path(folder, self.config_filename).write_text(text)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update({"cli": yaml.safe_load(text)}, allow_val_change=True)


class CLI(LightningCLI):
    """Data sets the number of classes and the input's shape of the model; the best and last checkpoints are kept."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in ("num_classes", "input_shape"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/acc",
                "checkpoint.mode": "max",
                "checkpoint.save_last": True,
                "checkpoint.filename": "best-{epoch:03d}",
            }
        )
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_lightning_class_args(RunReport, "report")


def main(args: ArgsType = None) -> CLI:
    """Run the command line; returns the CLI with its `trainer`, `model` and `datamodule`."""
    return CLI(
        LocalLearner,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SaveConfig,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        trainer_defaults={"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "logs"}}},
        args=args,
    )
