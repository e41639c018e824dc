"""Metrics from CSV files, TensorBoard events and W&B files, complete or truncated."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image

from lightning_ff.report import write_report
from lightning_ff.report.files import find_runs
from lightning_ff.report.readers import read_metrics
from lightning_ff.report.runs import read_run
from lightning_ff.report.series import Series
from tests.report.page_reader import read_page


def test_rows_of_a_csv_file_are_sparse(folder: Callable[..., Path]) -> None:
    made = folder(metrics_csv="epoch,step,train/loss,val/acc\n0,4,2.5,\n0,9,,0.25\n1,14,1.5,\n1,19,,nan\n")
    series = read_metrics(made).series
    assert set(series) == {"epoch", "train/loss", "val/acc"}
    assert (series["train/loss"].steps.tolist(), series["train/loss"].values.tolist()) == ([4, 14], [2.5, 1.5])
    assert series["val/acc"].best == 0.25
    assert np.isnan(series["val/acc"].last)


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("step,train/loss\n1,2.0\n2,1.", [(1, 2.0), (2, 1.0)]),
        ("step,train/loss\n1,2.0\n2", [(1, 2.0)]),
        ("step,train/loss\n1,2.0,7,8\nx,1\n2,oops\n", [(1, 2.0)]),
        ("step,train/loss\n1,2.0\n\0\0\0\0", [(1, 2.0)]),
        ("", []),
        ("step,train/loss\n", []),
    ],
)
def test_a_file_that_was_not_finished_counts_as_far_as_it_goes(
    folder: Callable[..., Path], text: str, points: list[tuple[int, float]]
) -> None:
    found = read_metrics(folder(metrics_csv=text))
    series = found.series.get("train/loss", Series.of([]))
    assert list(zip(series.steps.tolist(), series.values.tolist(), strict=True)) == points
    assert found.notes == ([] if points else ["metrics.csv holds no values"])


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger(tmp_path, name="board")
    for step, (loss, accuracy) in enumerate([(2.0, 0.25), (1.0, 0.75), (0.5, 0.5)]):
        logger.log_metrics({"epoch": step, "train/loss": loss, "val/acc": accuracy}, step)
        time.sleep(0.01)
        figure = Figure(figsize=(1 + step, 1))
        figure.add_axes((0, 0, 1, 1)).plot([0, 1])
        logger.experiment.add_figure("negatives", figure, step)
    logger.log_hyperparams({"widths": [8]})
    logger.finalize("success")
    (run,) = map(read_run, find_runs([tmp_path]))
    assert run.metrics.source == "TensorBoard events"
    assert run.series["train/loss"].values.tolist() == [2.0, 1.0, 0.5]
    assert (run.epochs, run.best("val/acc"), run.last("val/acc")) == (3, 0.75, 0.5)
    seconds, guessed = run.seconds
    assert 0.02 < (seconds or 0) < 100
    assert not guessed
    step, _ = run.pictures["negatives"]
    assert step == 2
    page = read_page(write_report([tmp_path], tmp_path / "page.html"))
    assert page.table("Accuracy of the networks").rows[1][3:5] == ["75.00", "50.00"]
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert image["alt"] == f"negatives of {tmp_path}/board/version_0"


def test_events_that_are_none(folder: Callable[..., Path]) -> None:
    made = folder(**{"events.out.tfevents.1": "no events"})
    found = read_metrics(made)
    assert (found.series, found.source) == ({}, "")
    assert found.notes == ["the TensorBoard events hold no values"]


def test_wandb(tmp_path: Path) -> None:
    """Of the file that a run keeps on disk; its checkpoints and configuration lie in project/run id."""
    logger = WandbLogger(project="digits", save_dir=tmp_path, offline=True)
    home = tmp_path / "digits" / str(logger.experiment.id)
    for step, (loss, accuracy) in enumerate([(2.0, 0.25), (1.0, 0.75), (0.5, 0.5)]):
        logger.log_metrics({"epoch": step, "train/loss": loss, "val/acc": accuracy}, 10 * step)
        logger.log_image("negatives", [Image.new("RGB", (4 + step, 3), "blue")], step=10 * step)
    logger.experiment.finish()
    home.mkdir(parents=True)
    (home / "config.yaml").write_text("model: {class_path: lightning_ff.ForwardForward}\n")
    start = time.monotonic()
    while len(read_metrics(home).pictures) + len(read_metrics(home).series) < 4 and time.monotonic() < start + 60:
        time.sleep(0.1)  # finish() does not wait for the file
    for given in (tmp_path, home, next((tmp_path / "wandb").glob("offline-run-*"))):
        (run,) = map(read_run, find_runs([given]))
        assert run.folder == home
    assert run.metrics.source == "W&B file"
    assert run.series["val/acc"].steps.tolist() == [0, 10, 20]
    assert run.series["val/acc"].values.tolist() == [0.25, 0.75, 0.5]
    step, _ = run.pictures["negatives"]
    assert step == 20
    assert read_page(write_report([home], tmp_path / "p.html")).table("The configurations").rows[1][1] == (
        "ForwardForward"
    )


def test_a_wandb_file_that_is_none(folder: Callable[..., Path]) -> None:
    made = folder("logs/wandb/run-1-abc", **{"run-abc.wandb": "no records at all, but more than seven bytes"})
    found = read_metrics(made)
    assert (found.series, found.source, len(found.notes)) == ({}, "", 1)
    assert found.notes[0].startswith("run-abc.wandb of the W&B run ")
