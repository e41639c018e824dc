"""`lightning-ff fit | validate | test | predict`; `__main__` runs `report`, `matrix` and `record` without this."""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from typing_extensions import override

import lightning_ff.data  # jsonargparse resolves short class names among imported classes
from lightning_ff._lightning import PARSE_CHECKPOINT, batches_seen, parser_of, setting
from lightning_ff.callbacks import PredictionWriter, RunReport
from lightning_ff.cli.arguments import LINKED, filled, given_names, saved_arguments
from lightning_ff.cli.checkpoints import last_checkpoint
from lightning_ff.cli.errors import Parser
from lightning_ff.cli.run_file import finish_run, start_run
from lightning_ff.learner import LocalLearner
from lightning_ff.loggers import run_folder
from lightning_ff.report.files import RUN

_ALSO = (
    "Also: lightning-ff report RUN [RUN ...] compares runs on one page, lightning-ff matrix FILE makes many runs, "
    "lightning-ff record RUN [RUN ...] writes their results to JSON."
)


# Warnings of Lightning about its own code, or about a call of `main` with arguments.
_NOT_FOR_USERS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "LightningCLI's args parameter is intended to run",
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
            Path(folder, self.config_filename).write_text(text, encoding="utf-8")
            if stage == "fit":
                checkpoint = self.config.get("ckpt_path")
                start_run(folder, trainer, text, self.command, None if checkpoint is None else str(checkpoint))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update({"cli": yaml.safe_load(text)}, allow_val_change=True)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the folder of a run that failed before it had trained a batch or written a result."""
        folder = run_folder(trainer) if trainer.is_global_zero and not batches_seen(trainer) else None
        settings = {self.config_filename, RUN, "hparams.yaml"}
        if folder is not None and folder.is_dir() and {file.name for file in folder.iterdir()} <= settings:
            shutil.rmtree(folder)


class CLI(LightningCLI):
    """Sets the model's number of classes and input shape from the data; keeps the best and the last checkpoint.

    Without a logger in the configuration, metrics and pictures are written to CSV and PNG files in `logs`.
    """

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in ("num_classes", "input_shape"):
            target = f"model.init_args.{name}" if self.subclass_mode_model else f"model.{name}"
            parser.link_arguments("data", target, self._from_data(name), apply_on="instantiate")
        best = {"monitor": "val/acc", "mode": "max", "filename": "best-{epoch:03d}"}
        # with a monitor, save_last=True writes last.ckpt only when the monitored metric improves
        last = {"filename": "last", "enable_version_counter": False, "save_on_train_epoch_end": True}
        for name, defaults in (("checkpoint", best), ("last", last)):
            parser.add_lightning_class_args(ModelCheckpoint, name)
            parser.set_defaults({f"{name}.{key}": value for key, value in defaults.items()})
        parser.link_arguments("checkpoint.dirpath", "last.dirpath")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_lightning_class_args(RunReport, "report")
        parser.add_argument(
            "--trusted", type=list[str], default=[], help="modules or classes that a checkpoint may import and call"
        )
        parser.add_argument("--test_after_fit", type=bool, default=False, help="test with the trained weights")

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        self._given_args = sys.argv[1:] if args is None else args

    def before_instantiate_classes(self) -> None:
        """Take the arguments of the model that are not given from the checkpoint in `ckpt_path`."""
        for name in LINKED:
            if [name] in given_names(self._given_args, []):
                raise ValueError(f"--model.{name} is taken from the data: leave it out")
        if (command := self.subcommand) is None or not (config := self.config[command]).ckpt_path:
            return
        if not self.subclass_mode_model:
            return
        if config.ckpt_path in ("last", "best") and command != "fit":
            config.ckpt_path = self._of_run(command, config.ckpt_path)
        file = Path(config.ckpt_path)
        if not file.is_file():
            return
        ours = config.model.clone().as_dict()
        saved = saved_arguments(file, ours["class_path"], config.trusted)
        files = [Path(str(each)) for each in [*(self.config.get("config") or []), *(config.get("config") or [])]]
        made = filled(ours["init_args"], saved, given_names(self._given_args, files))
        model = {**ours, "init_args": {name: value for name, value in made.items() if name not in LINKED}}
        self.config = self.parser.parse_object({command: {"model": model}}, self.config)

    def after_fit(self) -> None:
        """Test in the same run if test_after_fit is set, so that its folder has the test result; complete run.json."""
        if self.trainer.interrupted:
            return
        if setting(self, self.config, "test_after_fit"):
            self.trainer.test(self.model, datamodule=self.datamodule)
        finish_run(self.trainer)

    def before_fit(self) -> None:
        """In a resume the settings of the command line count: it has taken what is not given from the checkpoint."""
        if isinstance(self.model, LocalLearner):
            self.model._attached.own_settings = True

    def _of_run(self, command: str, which: Literal["last", "best"]) -> str:
        """Resolve "last" or "best", of which the Trainer alone knows the folder.

        Lightning would search this run's new folder, and continue with untrained weights.
        """
        without_model = self.config.clone()
        del without_model[command]["model"]
        logging.disable(logging.INFO)  # the Trainer is made again
        try:
            self.config_init = self.parser.instantiate_classes(without_model)
            return last_checkpoint(self.instantiate_trainer(), which)
        finally:
            logging.disable(logging.NOTSET)

    def _from_data(self, name: str) -> Callable[[LightningDataModule], Any]:
        """Function that reads an attribute of the data module for an argument of the model."""

        def value(data: LightningDataModule) -> Any:
            data_name, model = type(data).__name__, setting(self, self.config, "model")
            try:
                found, reason = getattr(data, name), f"data={data_name} has {name}=None"
            except AttributeError as error:
                found, reason = None, f"data={data_name} has no {name} ({error})"
            if found is None and name in model.get("init_args", ()):
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
        bare = setting(self, self.config_init, "trainer.barebones")
        if setting(self, self.config_init, "trainer.logger") is None and not bare:
            kwargs["logger"] = CSVLogger("logs")
        keys = parser_of(self).callback_keys
        if bare or setting(self, self.config_init, "trainer.enable_checkpointing") is False:
            keys[:] = [] if bare else [key for key in keys if key not in ("checkpoint", "last")]
        trainer = super().instantiate_trainer(**kwargs)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):  # wandb uses the system's temporary folder if this one does not exist
                Path(logger.save_dir or ".").mkdir(parents=True, exist_ok=True)
        return trainer


setattr(CLI, PARSE_CHECKPOINT, lambda cli: None)  # see CLI.before_instantiate_classes


def _is_no_tip(record: logging.LogRecord) -> bool:
    """Whether a log record is none of Lightning's advertisements."""
    return "Tip: " not in record.getMessage()


def main(args: ArgsType = None) -> CLI:
    """Run the command line; returns the CLI with its `trainer`, `model` and `datamodule`."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_tip)
    for message in _NOT_FOR_USERS:
        warnings.filterwarnings("ignore", message)
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
        parser_class=Parser,
        parser_kwargs={"prog": "lightning-ff", "version": lightning_ff.__version__, "epilog": _ALSO},
        args=args,
    )
