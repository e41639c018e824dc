"""Damaged files of a run: the page is made, and notes name them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

from lightning_ff import EnsembleMonitor, ForwardForward
from lightning_ff.data import Digits
from lightning_ff.report import write_report
from lightning_ff.report.runs import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose epochs are shorter than the log interval."""
    folder = tmp_path_factory.mktemp("logs")
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, logger=CSVLogger(folder, name="a", version="b"), enable_progress_bar=False,
        limit_train_batches=5, callbacks=[EnsembleMonitor(pictures=False)], log_every_n_steps=6,
    )  # fmt: skip
    model = ForwardForward(10, (1, 8, 8), widths=[8, 6])
    trainer.fit(model, Digits())
    trainer.test(model, Digits(), verbose=False)
    made = folder / "a" / "b"
    (made / "config.yaml").write_text("model: {class_path: ForwardForward}\ntrainer: {max_epochs: 2}\n")
    return made


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def notes(folder: Path) -> str:
    """Make the page; returns the notes on the run."""
    write_report([folder], folder.parent / "report.html")
    return "\n".join(read_run(folder).notes)


def stored(folder: Path) -> Path:
    return folder / "representations" / "test.npz"


def test_a_sound_run_has_no_notes_and_has_trained(copy: Path) -> None:
    assert notes(copy) == ""
    assert read_run(copy).trained
    assert not any(key.startswith("train/") and len(each.steps) > 1 for key, each in read_run(copy).series.items())


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_in_arrays(copy: Path, seed: int) -> None:
    file, draw = stored(copy), random.Random(seed)
    content = bytearray(file.read_bytes())
    for _ in range(3):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    said = notes(copy)
    assert "test.npz cannot be read" in said or read_run(copy).representation is not None


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "another rank": lambda values: np.asarray(values)[None],
    "empty": lambda values: np.asarray(values).reshape(-1)[:0],
    "text": lambda values: np.array(["x"] * max(1, np.size(values))),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "key", ["accuracy", "seen", "block00/members", "block00/mean", "block00/hoyer", "block00/dead_units"]
)
def test_arrays_of_another_shape_or_type(copy: Path, key: str, change: str) -> None:
    file = stored(copy)
    arrays = dict(np.load(file))
    arrays[key] = CHANGES[change](arrays[key])
    np.savez(file, **arrays)
    assert "representations/test.npz cannot be read: " in notes(copy)


def changed_metrics(change: Callable[[str], str]) -> Callable[[Path], Any]:
    return lambda folder: (folder / "metrics.csv").write_text(change((folder / "metrics.csv").read_text()))


def config(text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "config.yaml").write_text(text)


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a long cell": (changed_metrics(lambda text: f'{text}"{"x" * 200_000}"\n'), "metrics.csv cannot be read after"),
    "not a number": (changed_metrics(lambda text: "epoch,step,val/acc\nnan,nan,nan\nnan,3,.5\n"), ""),
    "infinite steps": (changed_metrics(lambda text: "epoch,step,val/acc\n0,inf,.5\n1,1e300,.5\n"), "holds no values"),
    "large values": (changed_metrics(lambda text: "epoch,step,val/acc\n0,1,1e308\n1,2,-1e308\n"), ""),
    "a cut line": (changed_metrics(lambda text: text[:-17]), ""),
    "an open quote": (changed_metrics(lambda text: f'{text}"abc'), ""),
    "nothing": (changed_metrics(lambda text: ""), "metrics.csv holds no values"),
    "YAML in itself": (config("model: &x {class_path: A, init_args: *x}\n"), "config.yaml cannot be read: more than"),
    "a list in itself": (config("a: &x [*x]\nmodel: *x\n"), "config.yaml cannot be read: more than"),
    "a bomb": (
        config("a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8))),
        "config.yaml cannot be read: more than",
    ),
    "keys of lists": (config("model: {[a]: 4}\n"), "config.yaml cannot be read"),
    "other types": (config("model: 3\ntrainer: [1]\ndata: x\nckpt_path: {a: 1}\n"), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_metrics_and_configurations(copy: Path, case: str) -> None:
    damage, said = FILES[case]
    shutil.rmtree(copy / "representations")  # whose pictures take most of the time
    damage(copy)
    assert said in notes(copy)
