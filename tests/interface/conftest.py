"""Fixtures of the interface tests: the command line within the process and outside of it, one real run of it."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lightning_ff.cli import CLI, main

ROOT = Path(__file__).parents[2]
sys.path.append(str(Path(__file__).parent))  # for wandb_reader, whatever pytest's way of importing
Series = dict[str, list[tuple[int, float]]]


@pytest.fixture(autouse=True)
def as_from_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments of pytest are none of the command line's."""
    monkeypatch.setattr(sys, "argv", ["lightning-ff"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of what Lightning calls


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of examples."""
    return ROOT / "examples"


@pytest.fixture(scope="session")
def command() -> Callable[..., CLI]:
    """The command line, run within this process on the CPU and without a progress bar."""

    def run(subcommand: str, *arguments: object) -> CLI:
        quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        return main([subcommand, *map(str, arguments), *quiet])

    return run


@pytest.fixture(scope="session")
def in_shell(python: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python -m lightning_ff` in a separate process, from a given folder."""

    def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        line = [python, "-m", "lightning_ff", *map(str, arguments)]
        return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="session")
def read_metrics() -> Callable[[Path], Series]:
    """Step and value of every metric of a `metrics.csv`, by name."""

    def read(file: Path) -> Series:
        series: Series = {}
        with file.open(newline="") as rows:
            for row in csv.DictReader(rows):
                for key, value in row.items():
                    if value and key != "step":
                        series.setdefault(key, []).append((int(row["step"]), float(value)))
        return series

    return read


@dataclass
class Trained:
    """A run of `lightning-ff fit --config examples/digits.yaml` over two epochs, from an empty folder.

    Attributes:
        folder: Where it was started.
        run: Folder of its results.
        arguments: What followed `fit`.
        output: What it printed.
        errors: What it printed to stderr: log lines and warnings.
    """

    folder: Path
    run: Path
    arguments: list[str]
    output: str
    errors: str

    @property
    def last(self) -> Path:
        """Its last checkpoint."""
        return self.run / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    examples: Path,
    in_shell: Callable[..., subprocess.CompletedProcess[str]],
) -> Trained:
    """One real run in a separate process, used by many tests."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = ["--config", str(examples / "digits.yaml"), "--trainer.max_epochs=2"]
    arguments += ["--trainer.check_val_every_n_epoch=1", "--trainer.enable_progress_bar=false"]
    done = in_shell(folder, "fit", *arguments)
    assert done.returncode == 0, done.stderr
    return Trained(folder, folder / "logs" / "digits" / "version_0", arguments, done.stdout, done.stderr)
