"""Every configuration in `examples/` runs: one batch of each stage."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typing_extensions import override

from lightning_ff.cli import CLI, main
from lightning_ff.data import ImageData
from tests.command_line import print_config

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = {str(file.relative_to(EXAMPLES).with_suffix("")): file for file in sorted(EXAMPLES.rglob("*.yaml"))}
CONFIGS = {name: yaml.safe_load(file.read_text()) for name, file in FILES.items()}
RUNS = {name: config for name, config in CONFIGS.items() if "model" in config}
MNIST_RUNS = ("mnist_hinton", "mnist_unsupervised")
COLOUR_RUNS = [
    name
    for name, config in RUNS.items()
    if ("CIFAR" in str(config["data"]) or "Folder" in str(config["data"])) and not re.search("protocol|family", name)
]
FAMILY_RUNS = ("family/trgl_mnist100", "family/backprop_mnist100")
GREY_RUNS = (*MNIST_RUNS, "mnist_conv", "fashion_mnist_conv", "fashion_mnist_transfer", *FAMILY_RUNS)
EMERGENT_RUNS = [f"emergent/{kind}_{data}" for kind in ("ff", "bpff", "bp") for data in ("mnist", "fashion_mnist")]
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
    one_batch = ("--trainer.fast_dev_run=1", "--trainer.log_every_n_steps=1", "--test_after_fit=false")
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


def test_every_example_is_a_run_a_matrix_or_a_sweep() -> None:
    assert {"digits", "digits_wandb", *MNIST_RUNS} <= set(RUNS)
    assert all("command" in config or "runs" in config for name, config in CONFIGS.items() if name not in RUNS)


def test_the_wandb_example_is_the_digits_example_with_another_logger() -> None:
    plain, logged = RUNS["digits"], RUNS["digits_wandb"]
    assert (logged["model"], logged["data"]) == (plain["model"], plain["data"])
    assert logged["trainer"]["max_epochs"] == plain["trainer"]["max_epochs"]


@pytest.mark.parametrize("name", [name for name in RUNS if data_of(name) == "Digits"])
def test_example_on_digits(command: Callable[..., CLI], name: str) -> None:
    check_stages(command, name)


@pytest.mark.realdata
@pytest.mark.parametrize("name", [name for name in RUNS if data_of(name) != "Digits" and "protocol" not in name])
def test_example_on_real_data(command: Callable[..., CLI], name: str) -> None:
    check_stages(command, name, f"--data.root={real_root(data_of(name))}")


# The MNIST examples without MNIST: files in its format, of noise


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Bytes in the format of MNIST's files: a magic number, the sizes, the values."""
    header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="session")
def made_up_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a data set with 350 training images and 60 test images, away from the runs' folder."""
    root, rng = tmp_path_factory.mktemp("made_up"), np.random.default_rng(0)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 350), ("t10k", 60)):
        write_idx(raw / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    (root / "FashionMNIST").symlink_to(root / "MNIST")
    return root


class Colours(ImageData):
    """Small pictures of noise in ten classes."""

    classes = tuple("0123456789")
    input_shape = (3, 32, 32)

    @override
    def read(self, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        count = 80 if train else 40
        return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 10


@pytest.mark.parametrize("name", COLOUR_RUNS)
def test_colour_example_on_made_up_images(tmp_path: Path, name: str) -> None:
    """The example's own model, as the command line builds it, on other images."""
    config = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": config["model"]}))
    colours = f"--data={__name__}.Colours"
    sizes = ("--data.batch_size=8", "--data.val_size=20", "--data.eval_batch_size=20")
    short = ("--trainer.fast_dev_run=2", "--trainer.log_every_n_steps=1")
    cli = main(["fit", f"--config={tmp_path}/model.yaml", colours, *sizes, *short])
    assert {"train/loss", "val/acc"} <= set(cli.trainer.callback_metrics)
    assert cli.trainer.global_step == 2
    assert type(cli.model).__name__ == config["model"]["class_path"]


@pytest.mark.parametrize("name", RUNS)
def test_every_key_of_an_example_is_known(name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        print_config("fit", f"--config={EXAMPLES / name}.yaml")
    assert ended.value.code in (0, None)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * ("emergent" in name and "ff_mnist" not in name))
        for name in (*GREY_RUNS, *EMERGENT_RUNS)
    ],
)
def test_mnist_example_on_made_up_files(command: Callable[..., CLI], made_up_mnist: Path, name: str) -> None:
    check_stages(command, name, f"--data.root={made_up_mnist}", "--data.val_size=50")


@pytest.mark.parametrize("name", MNIST_RUNS)
def test_mnist_example_logs_what_it_should(
    command: Callable[..., CLI], read_metrics: Any, made_up_mnist: Path, name: str
) -> None:
    """Two epochs of three batches; all negatives of the second are hard labels, where the example draws some."""
    files = (f"--data.root={made_up_mnist}", "--data.val_size=50", "--model.widths=[24,20,16,12]")
    short = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=3", "--trainer.log_every_n_steps=1")
    hard = ["--model.negatives.fraction=1"] if name == "mnist_hinton" else []
    cli = command("fit", "--config", EXAMPLES / f"{name}.yaml", *files, *short, *hard)
    run = Path("logs") / name / "version_0"
    assert (cli.trainer.global_step, cli.trainer.current_epoch) == (6, 2)
    assert {file.name for file in (run / "checkpoints").iterdir()} >= {"last.ckpt"}
    assert [file.name for file in sorted((run / "figures" / "negatives").iterdir())] == ["00000000.png"]
    assert len(list((run / "figures" / "goodness").iterdir())) == 1

    metrics = read_metrics(run / "metrics.csv")
    blocks = [f"block{k:02d}" for k in range(4)]
    readout = ["readout"] if name == "mnist_unsupervised" else []
    batchwise = {"train/loss", "train/acc", *(f"train/loss/{part}" for part in blocks + readout)}
    batchwise |= {f"goodness/{side}/{block}" for side in ("pos", "neg", "separation") for block in blocks}
    epochwise = {"val/loss", "val/acc", *(f"val/acc/{block}" for block in blocks)}
    assert set(metrics) == batchwise | epochwise | {"epoch"}
    assert all([step for step, _ in metrics[key]] == [0, 1, 2, 3, 4, 5] for key in batchwise)
    assert all([step for step, _ in metrics[key]] == [2, 5] for key in epochwise)

    values = {key: np.array([value for _, value in series]) for key, series in metrics.items()}
    assert all(np.isfinite(series).all() for series in values.values())
    np.testing.assert_allclose(values["train/loss"], sum(values[f"train/loss/{block}"] for block in blocks), rtol=1e-5)
    for block in blocks:
        positive, negative, separation = (values[f"goodness/{side}/{block}"] for side in ("pos", "neg", "separation"))
        np.testing.assert_allclose(separation, positive - negative, atol=1e-6)
    counts = [values[key] * 50 for key in epochwise if "acc" in key]
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)  # shares of 50 validation images


def test_a_number_of_blocks_from_the_command_line(tmp_path: Path) -> None:
    config = yaml.safe_load((EXAMPLES / "cifar10_sff.yaml").read_text())
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": config["model"]}))
    data = (f"--data={__name__}.Colours", "--data.batch_size=8", "--data.val_size=20")
    cli = main(["fit", f"--config={tmp_path}/model.yaml", *data, "--model.cuts=3", "--trainer.fast_dev_run=1"])
    assert len(cli.model.blocks) == 3


@pytest.mark.parametrize("data", ["mnist", "fashion_mnist", "cifar10", "svhn"])
def test_the_protocol_of_emergent_representations(data: str) -> None:
    """Rates, epochs, batches and widths of the public protocol of arXiv 2305.18353."""
    small = data in ("mnist", "fashion_mnist")
    epochs = {"mnist": 1200, "fashion_mnist": 100}.get(data, 1000)
    ff, bpff, bp = (RUNS[f"emergent/{kind}_{data}_protocol"] for kind in ("ff", "bpff", "bp"))
    for run in (ff, bpff):
        assert run["model"]["init_args"]["widths"] == [1000 if small else 3072] * 3
        assert run["model"]["init_args"]["loss"]["init_args"]["threshold"] == 3.0
    assert bp["model"]["init_args"]["model"]["init_args"]["widths"] == [1000 if small else 3072] * 3
    assert ff["trainer"]["callbacks"][0]["init_args"]["epochs"] == epochs
    assert (bpff["trainer"]["max_epochs"], bp["trainer"]["max_epochs"]) == (300 if small else 200, 80)
    rates = [run["model"]["init_args"]["optimizer"]["init_args"]["lr"] for run in (ff, bpff, bp)]
    assert rates == [0.01 if small else 1e-4, 1e-4, 1e-4]
    assert [run["data"]["init_args"]["batch_size"] for run in (ff, bpff, bp)] == [1024, 1024, 2048]
    assert {run["data"]["init_args"]["val_size"] for run in (ff, bpff, bp)} == {0}
