"""What callbacks write, against plain torch: goodness, pictures of negatives, the summary table, the progress bar."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelSummary, RichModelSummary
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.optim import SGD, Adam

from lightning_ff import (
    BlockSummary,
    CrossEntropy,
    ForwardForward,
    GoodnessMonitor,
    LinearGoodness,
    LinearReadout,
    LocalBlock,
    LocalLearner,
    LocalNetwork,
    NegativePictures,
    NegativeSampler,
    Normalize,
    PixelOverlay,
    SumReadout,
)
from lightning_ff.callbacks.goodness import split
from lightning_ff.data import Digits
from lightning_ff.learner.summary import block_table

Fit = Callable[..., Trainer]


class NextLabel(NegativeSampler):
    """The class after the true one."""

    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Any) -> Tensor:
        return learner.labels(x, (y + 1) % learner.num_classes)


class Before(Callback):
    """Keeps every training batch and the weights it met."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append((batch.image, batch.label))
        self.weights.append({key: value.clone() for key, value in pl_module.state_dict().items()})

    def goodness(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """Mean squares of positives and of next-label negatives per block, in plain torch."""
        image, label = self.batches[step]
        sides = []
        for y in (label, (label + 1) % 10):
            x = image.flatten(1).clone()
            x[:, :10] = one_hot(y, 10)
            side = []
            for k in (0, 1):
                x = x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
                layer = {
                    key.rpartition(".")[2]: w for key, w in self.weights[step].items() if f"blocks.{k}.layers" in key
                }
                x = torch.relu(x @ layer["weight"].T + layer["bias"])
                side.append(x.square().mean(1))
            sides.append(side)
        return list(zip(*sides, strict=True))


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Fit a learner on digits on the CPU, with metrics and pictures in `tmp_path`; 11 batches an epoch."""

    def run(learner: LocalLearner, *callbacks: Callback, **arguments: Any) -> Trainer:
        defaults = {"max_epochs": 2, "log_every_n_steps": 4, "num_sanity_val_steps": 0, "limit_val_batches": 0,
                    "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False,
                    "logger": CSVLogger(tmp_path, name="", version="")}  # fmt: skip
        trainer = Trainer(accelerator="cpu", callbacks=list(callbacks), **{**defaults, **arguments})
        trainer.fit(learner, Digits(batch_size=128))
        return trainer

    return run


def small(**arguments: Any) -> ForwardForward:
    arguments = {"negatives": NextLabel(), "optimizer": partial(SGD, lr=0.3), **arguments}
    return ForwardForward(10, (1, 8, 8), [12, 9], **arguments)


# Goodness


@pytest.mark.parametrize(
    ("every", "steps"), [(None, [3, 7, 11, 15, 19]), (5, [4, 9, 14, 19]), (3, [2, 5, 8, 11, 14, 17, 20])]
)
def test_goodness_is_that_of_the_batch_before_its_step(
    fit: Fit, read_metrics: Any, tmp_path: Path, every: int | None, steps: list[int]
) -> None:
    """Whether it follows the Trainer's interval of 4 batches or one of its own."""
    before = Before()
    trainer = fit(small(), before, GoodnessMonitor(every_n_steps=every))
    metrics = read_metrics(tmp_path / "metrics.csv")
    for k, block in enumerate(("block00", "block01")):
        sides = [before.goodness(step)[k] for step in steps]
        positive, negative = ([float(side[i].mean()) for side in sides] for i in (0, 1))
        expected = {"pos": positive, "neg": negative, "separation": np.subtract(positive, negative).tolist()}
        for name, values in expected.items():
            series = metrics[f"goodness/{name}/{block}"]
            assert [step for step, _ in series] == steps
            assert [value for _, value in series] == pytest.approx(values, rel=1e-4, abs=1e-6)
    assert float(trainer.callback_metrics["goodness/pos/block01"]) == metrics["goodness/pos/block01"][-1][1]


def test_positives_of_class_mode_are_the_true_classes() -> None:
    goodness, label = torch.randn(6, 5), torch.tensor([4, 0, 2, 2, 1, 3])
    positive, negative = split(goodness, label)
    assert positive.tolist() == [float(goodness[n, label[n]]) for n in range(6)]
    assert negative.tolist() == [float(goodness[n, c]) for n in range(6) for c in range(5) if c != label[n]]


def test_goodness_of_a_learner_in_class_mode(fit: Fit, read_metrics: Any, tmp_path: Path) -> None:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.ReLU())
    block = LocalBlock(layers, LinearGoodness(), CrossEntropy(), Normalize())
    learner = LocalLearner(LocalNetwork([block], (1, 8, 8), 10, SumReadout()), optimizer=partial(SGD, lr=0.1))
    start = {key: value.clone() for key, value in learner.state_dict().items()}
    first: list[Any] = []
    keep = Callback()
    keep.on_train_batch_start = lambda trainer, module, batch, number: first.append(batch)  # type: ignore[method-assign]
    fit(learner, keep, GoodnessMonitor(), max_epochs=1, log_every_n_steps=1)
    weights = [start[f"network.blocks.0.{name}"] for name in ("layers.1.weight", "layers.1.bias")]
    head = [start[f"network.blocks.0.goodness.projection.{name}"] for name in ("weight", "bias")]
    h = torch.relu(first[0].image.flatten(1) @ weights[0].T + weights[1])
    goodness = h @ head[0].T + head[1]
    true = one_hot(first[0].label, 10).bool()
    logged = {key: series[0][1] for key, series in read_metrics(tmp_path / "metrics.csv").items()}
    assert logged["goodness/pos/block00"] == pytest.approx(float(goodness[true].mean()), rel=1e-4, abs=1e-6)
    assert logged["goodness/neg/block00"] == pytest.approx(float(goodness[~true].mean()), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("monitor", "epochs", "steps"),
    [
        (GoodnessMonitor(histogram_every_n_epochs=2), {"max_epochs": 5}, [22, 44, 55]),
        (GoodnessMonitor(histogram_every_n_epochs=2), {"max_epochs": 4}, [22, 44]),
        (GoodnessMonitor(), {"max_epochs": -1, "max_steps": 14}, [14]),
        (GoodnessMonitor(histogram_every_n_epochs=0), {"max_epochs": 3}, []),
    ],
)
def test_histograms_come_at_their_epochs_and_at_the_end(
    fit: Fit, tmp_path: Path, monitor: GoodnessMonitor, epochs: dict[str, int], steps: list[int]
) -> None:
    fit(small(), monitor, **epochs)
    assert [int(file.stem) for file in sorted(tmp_path.glob("figures/goodness/*.png"))] == steps


def test_training_that_stops_early_has_its_histograms_too(fit: Fit, tmp_path: Path) -> None:
    stop = EarlyStopping("train/loss", mode="max", patience=1, check_on_train_epoch_end=True)
    fit(small(optimizer=partial(SGD, lr=0.0)), GoodnessMonitor(), stop, max_epochs=9)
    assert stop.stopped_epoch < 8
    (file,) = tmp_path.glob("figures/goodness/*.png")
    assert int(file.stem) == 11 * (stop.stopped_epoch + 1)


# Pictures


def test_picture_of_negatives_shows_the_first_batch_once(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_ff.callbacks import pictures

    drawn: list[Any] = []
    draw = pictures.pairs
    monkeypatch.setattr(pictures, "pairs", lambda *sides: drawn.append(sides) or draw(*sides))
    before = Before()
    fit(small(), before, NegativePictures(count=4))
    image, label = before.batches[0]
    expected = []
    for y in (label, (label + 1) % 10):
        side = image.clone().flatten(1)
        side[:, :10] = one_hot(y, 10)
        expected.append(side.view_as(image)[:4])
    ((positive, negative, shape),) = drawn
    assert torch.equal(positive, expected[0])
    assert torch.equal(negative, expected[1])
    assert shape == (1, 8, 8)
    (file,) = tmp_path.rglob("*.png")
    assert file == tmp_path / "figures" / "negatives" / "00000000.png"


def test_pictures_are_real_images_with_something_on_them(fit: Fit, tmp_path: Path) -> None:
    fit(small(), NegativePictures(count=6), GoodnessMonitor())
    files = sorted(tmp_path.rglob("*.png"))
    assert [file.parent.name for file in files] == ["goodness", "negatives"]
    for file in files:
        with Image.open(file) as picture:
            picture.verify()
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert min(pixels.shape[:2]) > 200
        share = (pixels != 255).any(2).mean()
        assert 0.05 < share < 0.95
    assert (pixels.max(2) == pixels.min(2)).all()  # the picture of digits is gray
    with Image.open(files[0]) as picture:
        goodness = np.asarray(picture.convert("RGB")).astype(int)
    assert (goodness[..., 1] > goodness[..., 0] + 40).any()  # positives are green
    assert (goodness[..., 0] > goodness[..., 1] + 40).any()  # negatives are red


# The summary table and the progress bar


@pytest.fixture
def printed() -> Iterator[list[str]]:
    """What Lightning prints on rank 0, whether or not its log goes on to pytest's."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def table_of(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line) for line in text.strip().splitlines()]


def test_summary_lists_blocks_parameters_and_optimizers() -> None:
    learner = small(
        readout=LinearReadout(skip_first=False),
        block_optimizers={"readout": partial(Adam, lr=0.25)},
        labels=PixelOverlay(),
    )
    columns = ["block", "layers", "output", "parameters"]
    blocks = [
        ["block00", "Linear", "(12,)", str(64 * 12 + 12)],
        ["block01", "Linear", "(9,)", str(12 * 9 + 9)],
        ["readout", "LinearReadout", "(10,)", str(12 * 10 + 10 + 9 * 10)],
    ]
    assert table_of(block_table(learner.network)) == [[*columns, "optimizer"], *([*row, "-"] for row in blocks)]
    learner.configure_optimizers()
    optimizers = ["SGD(lr=0.3)", "SGD(lr=0.3)", "Adam(lr=0.25)"]
    expected = [[*row, optimizer] for row, optimizer in zip(blocks, optimizers, strict=True)]
    assert table_of(block_table(learner.network, learner.local_optimizers)) == [[*columns, "optimizer"], *expected]


def test_summary_counts_parameters_of_heads_and_frozen_blocks() -> None:
    layers = [
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(144, 1000)),
    ]
    layers[0].requires_grad_(False)
    blocks = [LocalBlock(layer, LinearGoodness(), CrossEntropy()) for layer in layers]
    learner = LocalLearner(LocalNetwork(blocks, (1, 8, 8), 10, SumReadout()))
    learner.configure_optimizers()
    rows = table_of(block_table(learner.network, learner.local_optimizers))[1:]
    assert rows[0][1:] == ["Conv2d, BatchNorm2d", "(4, 6, 6)", f"{36 + 4 + 8 + 144 * 10 + 10:,}", "Adam(lr=0.001)"]
    assert rows[1][1:] == ["Linear", "(1000,)", f"{145_000 + 10_010:,}", "Adam(lr=0.001)"]
    assert rows[2][1:] == ["SumReadout", "(10,)", "0", "-"]


def test_summary_is_printed_once_instead_of_lightnings(fit: Fit, printed: list[str]) -> None:
    learner = small()
    fit(learner, enable_model_summary=True, max_epochs=1)
    tables = [text for text in printed if "block00" in text]
    assert tables == [
        f"\n{block_table(learner.network, learner.local_optimizers)}\n{64 * 12 + 12 + 12 * 9 + 9:,} parameters in all"
    ]
    assert not any("Trainable params" in text for text in printed)


@pytest.mark.parametrize("default", [ModelSummary, RichModelSummary])
def test_summary_replaces_the_default_one_with_and_without_rich(fit: Fit, default: type[ModelSummary]) -> None:
    summary = default.__new__(default)
    ModelSummary.__init__(summary)  # as the Trainer makes it where `rich` is installed
    trainer = fit(small(), summary, max_epochs=1, enable_model_summary=True)
    assert [type(c) for c in trainer.callbacks if isinstance(c, ModelSummary)] == [BlockSummary]


def test_progress_bar_shows_loss_and_accuracy(fit: Fit, read_metrics: Any, tmp_path: Path) -> None:
    trainer = fit(small(), limit_val_batches=1.0)
    metrics = {key: series[-1][1] for key, series in read_metrics(tmp_path / "metrics.csv").items()}
    keys = {"train/loss", "train/acc", "val/acc"}
    assert trainer.progress_bar_metrics == {key: metrics[key] for key in keys}


def test_the_bar_itself_names_them(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit(small(), enable_progress_bar=True, max_epochs=1)
    text = "".join(capsys.readouterr())
    assert re.search(r"Epoch 0: 100%.*train/loss=\d+\.\d+, train/acc=0\.\d+", text)
