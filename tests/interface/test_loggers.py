"""One `log_figure` for every logger, and the same numbers in all of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from matplotlib.figure import Figure
from PIL import Image

from lightning_ff import ForwardForward, GoodnessMonitor, NegativePictures, PredictionWriter, RunReport, log_figure
from lightning_ff.data import Digits
from lightning_ff.loggers import logger_folder, run_folder, send_figure


class Diary(Logger):
    """A custom logger that only has a folder."""

    def __init__(self, save_dir: Path | None, version: int | str = 3) -> None:
        super().__init__()
        self._save_dir, self._version = save_dir, version

    @property
    def save_dir(self) -> str | None:
        return None if self._save_dir is None else str(self._save_dir)

    @property
    def name(self) -> str:
        return "diary"

    @property
    def version(self) -> int | str:
        return self._version

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None: ...

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...


class Album(Diary):
    """A custom logger with its own function for pictures."""


@pytest.fixture
def picture() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.add_axes((0.1, 0.1, 0.8, 0.8)).plot([0, 1, 0])
    return figure


def pixels(file: Any) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def quiet(**arguments: Any) -> Trainer:
    defaults = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(accelerator="cpu", **{**defaults, **arguments})


def test_csv_and_tensorboard_hold_the_same_numbers_and_pictures(
    tmp_path: Path, read_metrics: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loggers = [TensorBoardLogger(tmp_path / "board"), CSVLogger(tmp_path / "csv")]
    callbacks = [GoodnessMonitor(), NegativePictures(count=3), RunReport()]
    trainer = quiet(max_epochs=2, log_every_n_steps=4, logger=loggers, callbacks=callbacks)
    model, data = ForwardForward(10, (1, 8, 8), [12, 9]), Digits()
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)

    board = events.EventAccumulator(loggers[0].log_dir, size_guidance={"images": 0, "scalars": 0})
    board.Reload()
    folder = Path(loggers[1].log_dir)
    table = read_metrics(folder / "metrics.csv")
    assert {"train/loss", "train/acc", "val/acc/block01", "goodness/separation/block01", "test/acc"} < set(table)
    assert set(board.Tags()["scalars"]) - {"hp_metric"} == set(table)
    for key, series in table.items():
        scalars = board.Scalars(key)
        assert [event.step for event in scalars] == [step for step, _ in series]
        assert [event.value for event in scalars] == pytest.approx([value for _, value in series], rel=1e-6)

    assert set(board.Tags()["images"]) == {"goodness", "negatives"}
    for key, step in (("negatives", 0), ("goodness", 22)):
        (event,) = board.Images(key)
        assert event.step == step
        in_board = pixels(io.BytesIO(event.encoded_image_string))
        as_file = pixels(folder / "figures" / key / f"{step:08d}.png")
        # the same figure at 100 and at 120 dots per inch
        assert np.multiply(in_board.shape[:2], 1.2) == pytest.approx(as_file.shape[:2], abs=1)
        assert in_board.std() > 20
        assert in_board.mean() == pytest.approx(as_file.mean(), rel=0.02)

    # the report finds the files of the second logger, and the folder of a viewer
    report = capsys.readouterr().out
    accuracy = table["test/acc"][0][1]
    for row in (f"test accuracy  {accuracy:.4f}", "metrics        csv/lightning_logs/version_0/metrics.csv",
                "pictures       csv/lightning_logs/version_0/figures",
                "TensorBoard    board/lightning_logs/version_0"):  # fmt: skip
        assert f"{row}\n" in report


def test_a_file_holds_the_figure(tmp_path: Path, picture: Figure) -> None:
    trainer = quiet(logger=[CSVLogger(tmp_path, name="a", version="b"), Diary(tmp_path)])
    log_figure(trainer, "some/key", picture)
    drawn = io.BytesIO()
    picture.savefig(drawn, dpi=120)
    for folder in (tmp_path / "a" / "b", tmp_path / "diary" / "version_3"):
        file = folder / "figures" / "some" / "key" / "00000000.png"
        np.testing.assert_array_equal(pixels(file), pixels(drawn))
    assert len(list(tmp_path.rglob("*.png"))) == 2


def test_a_logger_class_may_register_its_own_way(tmp_path: Path, picture: Figure) -> None:
    kept = []
    send_figure.register(Album)(lambda logger, key, figure, step: kept.append((key, figure, step)))
    log_figure(quiet(logger=Album(tmp_path)), "here", picture)
    assert kept == [("here", picture, 0)]
    assert list(tmp_path.iterdir()) == []


def test_without_a_logger_or_a_folder_nothing_is_written(tmp_path: Path, picture: Figure) -> None:
    for loggers in (False, Diary(None), DummyLogger()):
        trainer = quiet(logger=loggers)
        log_figure(trainer, "key", picture)
        assert run_folder(trainer) is None
    assert list(tmp_path.iterdir()) == []


def test_folders_are_those_of_checkpoints(tmp_path: Path) -> None:
    """Also for loggers that do not tell a folder for each run."""
    expected = {
        CSVLogger(tmp_path, name="a", version="b"): "a/b",
        CSVLogger(tmp_path): "lightning_logs/version_0",
        TensorBoardLogger(tmp_path, name="a", version=2): "a/version_2",
        WandbLogger(save_dir=tmp_path, project="p", id="x", offline=True): "p/x",
        Diary(tmp_path): "diary/version_3",
        Diary(tmp_path, "named"): "diary/named",
    }
    assert {str(logger_folder(logger)): logger for logger in expected} == {
        str(tmp_path / folder): logger for logger, folder in expected.items()
    }


def test_predictions_without_a_logger_lie_in_the_root_folder(tmp_path: Path) -> None:
    model, data, writer = ForwardForward(10, (1, 8, 8), [12]), Digits(eval_batch_size=200), PredictionWriter()
    for _ in range(2):  # the second run does not append to the first
        quiet(logger=False, default_root_dir=tmp_path / "root", callbacks=[writer]).predict(model, data)
        assert len((tmp_path / "root" / "predictions.csv").read_text().splitlines()) == 361


def test_predictions_of_data_without_an_index_are_numbered(tmp_path: Path) -> None:
    import torch
    from torch.utils.data import DataLoader

    images = torch.rand(7, 1, 8, 8)
    model = ForwardForward(10, (1, 8, 8), [12])
    loader: DataLoader[Any] = DataLoader(images, batch_size=3)  # type: ignore[arg-type]
    quiet(logger=CSVLogger(tmp_path), callbacks=[PredictionWriter()]).predict(model, loader)
    (file,) = tmp_path.rglob("predictions.csv")
    rows = [line.split(",")[:2] for line in file.read_text().splitlines()[1:]]
    assert rows == [[str(n), str(int(label))] for n, label in enumerate(model(images).argmax(1))]


def test_predictions_of_several_loaders_say_which(tmp_path: Path) -> None:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    plain, indexed = torch.rand(5, 1, 8, 8), torch.rand(4, 1, 8, 8)
    places = torch.tensor([30, 10, 20, 40])
    loaders: list[DataLoader[Any]] = [
        DataLoader(plain, batch_size=2),  # type: ignore[arg-type]
        DataLoader(TensorDataset(indexed, places, places), batch_size=3),
        DataLoader(plain[:3], batch_size=2),  # type: ignore[arg-type]
    ]
    model, writer = ForwardForward(10, (1, 8, 8), [12]), PredictionWriter(str(tmp_path / "answers.csv"))
    for _ in range(2):  # the second run does not append to the first
        quiet(logger=False, callbacks=[writer]).predict(model, loaders)
    header, *rows = [line.split(",") for line in (tmp_path / "answers.csv").read_text().splitlines()]
    assert header == ["loader", "index", "prediction", *(f"score{c}" for c in range(10))]
    expected = [(0, n) for n in range(5)] + [(1, n) for n in places.tolist()] + [(2, n) for n in range(3)]
    assert [(int(row[0]), int(row[1])) for row in rows] == expected
    scores = model(torch.cat((plain, indexed, plain[:3])))
    assert [int(row[2]) for row in rows] == scores.argmax(1).tolist()
    torch.testing.assert_close(torch.tensor([[float(v) for v in row[3:]] for row in rows]), scores)
    quiet(logger=False, callbacks=[writer]).predict(model, loaders[:1])  # one loader, also in a list
    assert (tmp_path / "answers.csv").read_text().startswith("index,prediction,score0")
