"""`lightning-ff fit | validate | test | predict`; `__main__` runs `report`, `matrix` and `record` without this."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from typing_extensions import override

import lightning_ff.data  # jsonargparse resolves short class names among imported classes
from lightning_ff._lightning import setting
from lightning_ff.callbacks import PredictionWriter, RunReport
from lightning_ff.cli.checkpoints import last_checkpoint
from lightning_ff.cli.run_file import finish_run, start_run
from lightning_ff.learner import LocalLearner
from lightning_ff.loggers import run_folder

_ALSO = (
    "Also: lightning-ff report RUN [RUN ...] compares runs on one page, lightning-ff matrix FILE makes many runs, "
    "lightning-ff record RUN [RUN ...] writes their results to JSON."
)


class SaveConfig(SaveConfigCallback):
    """Write the configuration into the run's folder and into the config of a W&B run; for `fit` also `run.json`."""

    def __init__(self, *args: Any, command: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})
        self.command = command

    @override
    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = run_folder(trainer)
        text = self.parser.dump(self.config, skip_none=False)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            Path(folder, self.config_filename).write_text(text)
            if stage == "fit":
                checkpoint = self.config.get("ckpt_path")
                start_run(folder, trainer, text, self.command, None if checkpoint is None else str(checkpoint))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update({"cli": yaml.safe_load(text)}, allow_val_change=True)


class CLI(LightningCLI):
    """Sets the model's number of classes and input shape from the data; keeps the best and the last checkpoint.

    Without a logger in the configuration, metrics and pictures are written to CSV and PNG files in `logs`.
    """

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in ("num_classes", "input_shape"):
            parser.link_arguments("data", f"model.init_args.{name}", self._from_data(name), apply_on="instantiate")
        best = {"monitor": "val/acc", "mode": "max", "filename": "best-{epoch:03d}"}
        # with a monitor, save_last=True writes last.ckpt only when the monitored metric improves
        last = {"filename": "last", "enable_version_counter": False, "save_on_train_epoch_end": True}
        for name, defaults in (("checkpoint", best), ("last", last)):
            parser.add_lightning_class_args(ModelCheckpoint, name)
            parser.set_defaults({f"{name}.{key}": value for key, value in defaults.items()})
        parser.link_arguments("checkpoint.dirpath", "last.dirpath")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_lightning_class_args(RunReport, "report")
        parser.add_argument("--test_after_fit", type=bool, default=False, help="test with the trained weights")

    def after_fit(self) -> None:
        """Test in the same run if test_after_fit is set, so that its folder has the test result; complete run.json."""
        if self.trainer.interrupted:
            return
        if setting(self, self.config, "test_after_fit"):
            self.trainer.test(self.model, datamodule=self.datamodule)
        finish_run(self.trainer)

    def before_validate(self) -> None:
        """Resolve "last": Lightning would search this run's new folder, and continue with untrained weights."""
        arguments = self.config_init[self.subcommand]
        if arguments.ckpt_path == "last":
            arguments.ckpt_path = last_checkpoint(self.trainer)

    before_test = before_predict = before_validate

    def _from_data(self, name: str) -> Callable[[LightningDataModule], Any]:
        """Function that reads an attribute of the data module for an argument of the model."""

        def value(data: LightningDataModule) -> Any:
            data_name, model = type(data).__name__, setting(self, self.config, "model")
            try:
                found, reason = getattr(data, name), f"data={data_name} has {name}=None"
            except AttributeError as error:
                found, reason = None, f"data={data_name} has no {name} ({error})"
            if found is None and name in model.init_args:
                model_type = model.class_path.rpartition(".")[2]
                raise ValueError(
                    f"{reason}, and {model_type} takes it from the data: set self.{name} in the __init__ of "
                    f"{data_name}, or make it a property"
                )
            return found

        return value

    @override
    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except Exception as error:  # of the part that could not be built, without the errors of jsonargparse around it
            inner: BaseException | None = error
            while inner is not None:
                *_, (frame, _) = traceback.walk_tb(inner.__traceback__)
                if not str(frame.f_globals.get("__name__", "")).startswith("jsonargparse"):
                    break
                inner = inner.__cause__
            raise inner or error from None

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        # not a default of the parser: its arguments would be passed to another logger set by the user
        if setting(self, self.config_init, "trainer.logger") is None:
            kwargs["logger"] = CSVLogger("logs")
        trainer = super().instantiate_trainer(**kwargs)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):  # wandb uses the system's temporary folder if this one does not exist
                Path(logger.save_dir or ".").mkdir(parents=True, exist_ok=True)
        return trainer


def main(args: ArgsType = None) -> CLI:
    """Run the command line; returns the CLI with its `trainer`, `model` and `datamodule`."""
    words = sys.argv[1:] if args is None else args
    command = shlex.join(["lightning-ff", *map(str, words)]) if isinstance(words, list) else None
    return CLI(
        LocalLearner,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SaveConfig,
        save_config_kwargs={"command": command},
        seed_everything_default=0,
        auto_configure_optimizers=False,
        parser_kwargs={"prog": "lightning-ff", "version": lightning_ff.__version__, "epilog": _ALSO},
        args=args,
    )
