"""Every configuration in `examples/` runs: one batch of each stage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from lightning_ff.cli import CLI

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = {file.stem: yaml.safe_load(file.read_text()) for file in sorted(EXAMPLES.glob("*.yaml"))}
RUNS = {name: config for name, config in CONFIGS.items() if "model" in config}
FOLDERS = {"MNIST": "MNIST", "FashionMNIST": "FashionMNIST", "CIFAR10": "cifar-10-batches-py"}


def data_of(name: str) -> str:
    """Class of an example's data."""
    data = RUNS[name]["data"]
    return (data if isinstance(data, str) else data["class_path"]).rpartition(".")[2]


def real_root(data: str) -> str:
    """Folder of a real data set, or skip."""
    root = os.environ.get("LIGHTNING_FF_DATA", "")
    if not root or not (Path(root) / FOLDERS.get(data, data)).exists():
        pytest.skip(f"LIGHTNING_FF_DATA names no folder with {data}")
    return root


def check_stages(command: Callable[..., CLI], name: str, *arguments: str) -> None:
    """One batch of training, validation, test and prediction, with the example's own arguments."""
    one_batch = ("--trainer.fast_dev_run=1", "--trainer.log_every_n_steps=1")
    cli = command("fit", "--config", EXAMPLES / f"{name}.yaml", *one_batch, *arguments)
    metrics = dict(cli.trainer.callback_metrics)
    cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    metrics |= cli.trainer.callback_metrics
    assert {"train/loss", "train/acc", "val/acc", "test/acc"} <= set(metrics)
    assert all(torch.isfinite(torch.as_tensor(value)) for value in metrics.values())
    (prediction,) = cli.trainer.predict(cli.model, cli.datamodule)  # type: ignore[misc]
    scores = prediction["scores"]  # type: ignore[index, call-overload]
    assert scores.shape[1] == cli.datamodule.num_classes
    assert bool(scores.isfinite().all())
    assert list(Path().iterdir()) == []


def test_every_example_is_a_run_or_a_sweep() -> None:
    assert {"digits", "digits_wandb"} <= set(RUNS)
    assert all("command" in CONFIGS[name] for name in set(CONFIGS) - set(RUNS))


def test_the_wandb_example_is_the_digits_example_with_another_logger() -> None:
    plain, logged = RUNS["digits"], RUNS["digits_wandb"]
    assert (logged["model"], logged["data"]) == (plain["model"], plain["data"])
    assert logged["trainer"]["max_epochs"] == plain["trainer"]["max_epochs"]


@pytest.mark.parametrize("name", [name for name in RUNS if data_of(name) == "Digits"])
def test_example_on_digits(command: Callable[..., CLI], name: str) -> None:
    check_stages(command, name)


@pytest.mark.realdata
@pytest.mark.parametrize("name", [name for name in RUNS if data_of(name) != "Digits"])
def test_example_on_real_data(command: Callable[..., CLI], name: str) -> None:
    check_stages(command, name, f"--data.root={real_root(data_of(name))}")
