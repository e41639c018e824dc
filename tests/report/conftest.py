"""Small real runs of the command line and a file of representations written by hand."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_ff.cli import main
from lightning_ff.report import write_report
from tests.report.page_reader import Page, read_page

_QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
_SHORT = ("--data=Digits", "--data.train_size=20", "--data.batch_size=20", "--trainer.log_every_n_steps=5")
_FF = ("--model=ForwardForward", "--model.widths=[16,12]", *_SHORT)
_BACKPROP = (
    *("--model=Backprop", "--model.model=ConvNet", "--model.model.num_classes=10", "--model.model.channels=1"),
    *("--model.model.widths=[4,4]", "--model.model.pools=[0]", *_SHORT),
)


@dataclass
class Runs:
    """Runs below one folder.

    Attributes:
        root: Where all lie.
        seeds: ForwardForward, twice with other seeds; the first one was tested.
        tested: Folder of that test.
        backprop: Of another method, without representations.
        broken: A copy of the first that was killed in its second epoch, as far as its files show it.
    """

    root: Path
    seeds: list[Path]
    tested: Path
    backprop: Path
    broken: Path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(sys, "argv", ["lightning-ff"])
        patch.chdir(root)
        patch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
        for seed in (0, 1):
            seeded = (f"--seed_everything={seed}", f"--data.seed={seed}")
            _run("fit", "ff", *_FF, *seeded, "--trainer.max_epochs=2", "--trainer.callbacks+=GoodnessMonitor")
        last = "logs/ff/version_0/checkpoints/last.ckpt"
        monitor = ("--trainer.callbacks+=EnsembleMonitor", "--trainer.callbacks.samples=5")
        _run("test", "tested", *_FF, *monitor, f"--ckpt_path={last}")
        _run("fit", "backprop", *_BACKPROP, "--trainer.max_epochs=1")
    logs = root / "logs"
    broken = shutil.copytree(logs / "ff/version_0", root / "broken/ff/version_0")
    shutil.rmtree(broken / "checkpoints")
    _cut(broken / "metrics.csv")
    return Runs(root, sorted((logs / "ff").iterdir()), logs / "tested/version_0", logs / "backprop/version_0", broken)


def _run(subcommand: str, name: str, *arguments: str) -> None:
    logger = ("--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", f"--trainer.logger.name={name}")
    main([subcommand, *arguments, *logger, *_QUIET])


def _cut(file: Path) -> None:
    """Leave a file as a killed process would: half of it, in the middle of a number."""
    text = file.read_text()
    end = text.index("\n", len(text) // 2)
    file.write_text(text[: end - 3])


@pytest.fixture(scope="session")
def page(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """One page of all of them."""
    return read_page(write_report([runs.root / "logs", runs.broken], tmp_path_factory.mktemp("page") / "report.html"))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run's folder from the text of its files."""

    def make(name: str = "logs/made/version_0", **files: str) -> Path:
        made = tmp_path / name
        made.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (made / file.replace("_csv", ".csv").replace("_yaml", ".yaml")).write_text(text)
        return made

    return make


@pytest.fixture
def statistics() -> dict[str, Any]:
    """What an ensemble monitor stores of one layer of four units and three classes, the last one never trained on."""
    return {
        "classes": np.array(["cat", "dog", "<owl>"]),
        "accuracy": np.array([0.5, 0.75, 0.25]),
        "confusion": np.array([[2, 1, 1], [1, 3, 0], [2, 1, 1]]),
        "layers": np.array(["block00"]),
        "definition": np.array("leave_one_out k=1"),
        "samples": np.array("correct"),
        "seen": np.array([True, True, False]),
        "label_policy": np.array("neutral"),
        "label": np.array([0, 0, 1, 2]),
        "index": np.array([3, 5, 6, 9]),
        "block00/count": np.array([1.0, 3.0, 2.0]),
        "block00/hoyer": np.array([0.2, 0.6, 0.9]),
        "block00/treves_rolls": np.array([0.1, np.nan, 0.5]),
        "block00/active_fraction": np.array([0.5, 0.25, 1.0]),
        "block00/mean": np.array([[1.0, 4.0, 0.0, 0.0], [0.0, 4.0, 1.0, 0.0], [2.0, 0.0, 0.0, 0.0]]),
        "block00/variance": np.ones((3, 4)),
        "block00/active": np.full((3, 4), 0.5),
        "block00/highest": np.full((3, 4), 2.0),
        "block00/dead_units": np.array(1),
        "block00/members": np.array([[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]], dtype=bool),
        "block00/activations": np.arange(16, dtype=np.float32).reshape(4, 4),
    }


@pytest.fixture
def store() -> Callable[[Path, str, dict[str, Any]], Path]:
    """Writes such a file into a run's folder."""

    def write(run: Path, name: str, values: dict[str, Any]) -> Path:
        file = run / "representations" / f"{name}.npz"
        file.parent.mkdir(exist_ok=True)
        np.savez_compressed(file, **values)
        return file

    return write
