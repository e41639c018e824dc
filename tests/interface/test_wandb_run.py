"""Real offline W&B runs, read back from their files, and one trial of the sweep as W&B would start it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR
from wandb_reader import WandbRun, read_run

from lightning_ff import ForwardForward, GoodnessMonitor, NegativePictures, SymBa
from lightning_ff.cli import CLI
from lightning_ff.data import Digits
from lightning_ff.report import write_report
from lightning_ff.spec import part
from tests.report.page_reader import read_page


def check_images(run: WandbRun, files: Path, steps: dict[str, int]) -> None:
    """Every key has one picture, logged at its step, whose file is there and shows something."""
    for key, step in steps.items():
        (row,) = [row for row in run.history if key in row]
        assert row["trainer/global_step"] == step
        (name,) = run.images(key)
        with Image.open(files / name) as picture:
            assert picture.size == (row[key]["width"], row[key]["height"])
            assert np.asarray(picture.convert("L")).std() > 20


def test_a_run_holds_the_metrics_of_the_csv_logger_the_pictures_and_the_hyperparameters(
    tmp_path: Path, read_metrics: Any
) -> None:
    loggers = [
        CSVLogger(tmp_path, name="csv", version=""),
        WandbLogger(project="digits", offline=True, save_dir=tmp_path),
    ]
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", log_every_n_steps=4, logger=loggers, enable_checkpointing=False,
        enable_progress_bar=False, callbacks=[GoodnessMonitor(), NegativePictures(count=3)],
    )  # fmt: skip
    sgd, constant = partial(SGD, lr=0.25), lambda optimizer: ConstantLR(optimizer, 1.0)
    model = ForwardForward(10, (1, 8, 8), [12, 9], loss=SymBa(alpha=3.0), optimizer=sgd, scheduler=constant)
    trainer.fit(model, Digits())
    trainer.test(model, Digits(), verbose=False)
    files = Path(loggers[1].experiment.dir)
    wandb.finish()

    run = read_run(tmp_path / "wandb")
    expected = read_metrics(tmp_path / "csv" / "metrics.csv")
    assert {"train/loss", "train/loss/block01", "val/acc", "test/acc/block00", "goodness/pos/block00"} < set(expected)
    assert run.metrics() == expected
    assert run.project == "digits"
    check_images(run, files, {"negatives": 0, "goodness": 22})
    assert run.config["widths"] == [12, 9]
    assert run.config["loss"] == {"class_path": "lightning_ff.objectives.losses.SymBa", "init_args": {"alpha": 3.0}}
    assert run.config["scheduler"] == "<lambda>"  # which a checkpoint cannot hold
    assert "lightning_ff.spec.missing" not in str(run.config)
    with pytest.raises(ValueError, match="this part was not saved in the checkpoint"):
        part(model.hparams["scheduler"])
    (row,) = read_page(write_report([tmp_path / "wandb"], tmp_path / "p.html")).table("The configurations").rows[1:]
    assert row[1] == "ForwardForward"
    assert run.config["optimizer"] == {"class_path": "torch.optim.sgd.SGD", "init_args": {"lr": 0.25}}


def test_the_example_from_the_command_line(
    command: Callable[..., CLI], examples: Path, tmp_path: Path, read_metrics: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.teardown()  # its service resolves the example's relative folder against where it was started
    short = ["--config", examples / "digits_wandb.yaml", "--model.widths=[24,16]", "--trainer.max_epochs=2",
             "--trainer.check_val_every_n_epoch=1"]  # fmt: skip
    cli = command("fit", *short, "--trainer.logger.init_args.offline=true")
    name = cli.trainer.logger.experiment.id  # type: ignore[union-attr]
    files = Path(cli.trainer.logger.experiment.dir)  # type: ignore[union-attr]
    report = capsys.readouterr().out
    wandb.finish()
    command("fit", *short, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=other")

    run = read_run(tmp_path / "logs" / "wandb")
    (metrics,) = Path("other").rglob("metrics.csv")
    assert run.metrics() == read_metrics(metrics)
    check_images(run, files, {"negatives": 0, "goodness": 52})

    # checkpoints and configuration lie beside each other, out of the way of W&B's own config.yaml
    folder = Path("logs") / "lightning-ff" / name
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "other"}
    assert {path.name for path in Path("logs").iterdir()} == {"lightning-ff", "wandb"}
    assert {path.name for path in folder.iterdir()} == {"checkpoints", "config.yaml", "run.json"}
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert f"configuration    {folder}/config.yaml\n" in report
    assert f"W&B run          {files.parent}\n" in report
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert run.config["cli"] == saved
    assert saved["model"]["init_args"]["widths"] == run.config["widths"] == [24, 16]
    assert run.project == saved["trainer"]["logger"]["init_args"]["project"] == "lightning-ff"


def test_a_trial_of_the_sweep_runs_as_wandb_starts_it(
    command: Callable[..., CLI], examples: Path, tmp_path: Path
) -> None:
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    sweep = yaml.safe_load((examples / "wandb_sweep.yaml").read_text())
    assert sweep["method"] in ("bayes", "grid", "random")
    assert sweep["metric"] == {"name": "val/acc", "goal": "maximize"}
    assert "value" in sweep["parameters"]["seed_everything"]  # nothing that is optimised
    choice = {}
    for name, space in sweep["parameters"].items():
        if "value" in space or "values" in space:
            choice[name] = space["value"] if "value" in space else space["values"][0]
        else:
            assert space["distribution"] in ("log_uniform_values", "uniform")
            assert space["min"] < space["max"]
            choice[name] = space["max"]

    macros = {"env": ["/usr/bin/env"], "program": [sweep["program"]]}
    macros |= utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in choice.items()}})
    line: list[str] = []
    for word in utils.create_sweep_command(sweep["command"]):
        line += macros[word[2:-1]] if word.startswith("${") else [word]
    assert line[:3] == ["/usr/bin/env", "lightning-ff", "fit"]

    (tmp_path / "examples").symlink_to(examples)
    cli = command(*line[2:], "--trainer.fast_dev_run=1", "--trainer.log_every_n_steps=1")
    assert cli.model.blocks[0].loss.alpha == choice["model.init_args.loss.init_args.alpha"]
    rates = {group["initial_lr"] for group in cli.model.local_optimizers.param_groups}
    assert rates == {choice["model.init_args.optimizer.init_args.lr"]}
    assert [shape[0].numel() for shape in cli.model.network.shapes] == yaml.safe_load(choice["model.init_args.widths"])
    assert cli.config.fit.seed_everything == choice["seed_everything"]
    assert sweep["metric"]["name"] in cli.trainer.callback_metrics
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
