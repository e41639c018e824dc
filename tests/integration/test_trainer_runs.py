"""Length of a run of a learner under a real Trainer, and what happens around it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from typing_extensions import override

from lightning_ff import CosineToEnd, GoodnessMonitor, MineNegatives, NegativePictures, RunReport

ALL_KEYS = {"val/loss", "val/acc", "val/acc/block00", "val/acc/block01"}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("batches", [1, 3])
def test_fast_dev_run_runs_every_part_and_leaves_nothing(
    learner: Any, digits: Any, trainer: Any, tally: Any, tmp_path: Path, batches: int
) -> None:
    parts = [tally, GoodnessMonitor(every_n_steps=1), NegativePictures(), MineNegatives(above=0.0), RunReport()]
    model, data = learner(), digits(eval_batch_size=10)
    runner = trainer(
        fast_dev_run=batches,
        logger=CSVLogger(tmp_path),
        callbacks=[*parts, ModelCheckpoint()],
        enable_checkpointing=True,
    )
    runner.fit(model, data)
    runner.test(model, data)
    runner.predict(model, data)
    assert tally.batches == [(0, number) for number in range(batches)]
    assert tally.validation_batches == batches
    assert runner.global_step == batches
    assert files(tmp_path) == []


def test_overfit_batches_learns_them_by_heart(learner: Any, digits: Any, trainer: Any) -> None:
    model = learner(widths=[64, 64], optimizer=partial(torch.optim.Adam, lr=0.03))
    data, runner = digits(batch_size=40), trainer(overfit_batches=2, max_epochs=300, check_val_every_n_epoch=300)
    runner.fit(model, data)
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(2), strict=False)]
    hits = torch.cat([model(batch.image).argmax(1) == batch.label for batch in batches])
    assert len(hits) == 80
    assert float(hits.float().mean()) >= 0.99


@pytest.mark.parametrize("step", ["batch", "block"])
@pytest.mark.parametrize(("accumulate", "batches"), [(1, 10), (2, 17), (5, 50), (7, 50)])
def test_max_steps_counts_optimizer_steps(
    learner: Any, digits: Any, trainer: Any, tally: Any, step: str, accumulate: int, batches: int
) -> None:
    # An epoch is 5 batches and its last one steps too: 3 steps an epoch for 2 batches a step.
    model = learner(step=step, accumulate_grad_batches=accumulate)
    runner = trainer(max_steps=10, callbacks=[tally])
    runner.fit(model, digits())
    assert runner.global_step == 10
    assert len(tally.batches) == batches
    assert model.local_optimizers.state[next(model.parameters())]["step"] == 10


def test_limits_of_batches(learner: Any, digits: Any, trainer: Any, tally: Any) -> None:
    model, data = learner(accumulate_grad_batches=2), digits(eval_batch_size=10)
    limits = {"limit_train_batches": 3, "limit_val_batches": 0.5, "limit_test_batches": 2, "limit_predict_batches": 1}
    runner = trainer(max_epochs=2, callbacks=[tally], **limits)
    runner.fit(model, data)
    assert tally.batches == [(epoch, number) for epoch in range(2) for number in range(3)]
    assert runner.global_step == 4  # the last batch of a limited epoch steps too
    assert tally.validation_batches == 2 * 2
    runner.test(model, data)
    assert runner.num_test_batches == [2]
    assert [len(part["label"]) for part in runner.predict(model, data)] == [10]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Random images without end, or a given number of them, of no known length."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count

    @override
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator, number = torch.Generator().manual_seed(0), 0
        while self.count is None or number < self.count:
            yield torch.rand(1, 8, 8, generator=generator), torch.tensor(number % 10)
            number += 1


def test_data_without_a_length_run_until_max_steps(learner: Any, trainer: Any, tally: Any) -> None:
    model = learner(scheduler=CosineToEnd, scheduler_interval="step")
    runner = trainer(max_steps=7, callbacks=[tally])
    runner.fit(model, DataLoader(Stream(), batch_size=8))
    assert tally.batches == [(0, number) for number in range(7)]
    assert runner.global_step == 7
    assert runner.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_data_without_a_known_length_end_their_epochs(learner: Any, trainer: Any, tally: Any) -> None:
    model = learner(accumulate_grad_batches=2, scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5))
    runner = trainer(max_epochs=2, callbacks=[tally])
    runner.fit(model, DataLoader(Stream(20), batch_size=8))
    assert tally.batches == [(epoch, number) for epoch in range(2) for number in range(3)]
    assert runner.global_step == 4
    assert runner.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 / 4)


def test_a_second_fit_goes_on_learning(learner: Any, digits: Any, trainer: Any, tally: Any) -> None:
    model, data, runner = learner(), digits(), trainer(max_epochs=2, callbacks=[tally])
    runner.fit(model, data)
    middle = float(runner.callback_metrics["val/loss"])
    runner.fit_loop.max_epochs = 30
    runner.fit(model, data)
    assert tally.batches == [(epoch, number) for epoch in range(30) for number in range(5)]
    assert runner.global_step == 150
    assert float(runner.callback_metrics["val/loss"]) < middle
    again = trainer(max_epochs=1)
    again.fit(model, data)
    assert again.global_step == 5


class Interrupt(Callback):
    """Interrupts the run before a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    @override
    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            raise InterruptedError


def test_a_fit_after_one_that_stopped_between_two_steps_starts_without_its_gradients(
    learner: Any, digits: Any, trainer: Any, same: Any
) -> None:
    straight, stopped = (learner(accumulate_grad_batches=4) for _ in range(2))
    trainer(max_epochs=1).fit(straight, digits())
    with pytest.raises(InterruptedError):
        trainer(max_epochs=1, callbacks=[Interrupt(2)]).fit(stopped, digits())
    assert all(p.grad is not None and p.grad.any() for p in stopped.parameters())
    trainer(max_epochs=1).fit(stopped, digits())
    assert same(stopped, straight)


def test_validate_without_fit_agrees_with_the_scores(learner: Any, digits: Any, trainer: Any) -> None:
    model, data = learner(), digits()
    answers = {}
    for inference_mode in (True, False):
        (answers[inference_mode],) = trainer(inference_mode=inference_mode).validate(model, data, verbose=False)
    assert answers[True] == answers[False]
    assert answers[True].keys() == ALL_KEYS
    (batch,) = data.val_dataloader()
    scores = [model(batch.image), *model.block_scores(batch.image)]
    accuracies = [float((each.argmax(1) == batch.label).float().mean()) for each in scores]
    assert [answers[True][name] for name in ("val/acc", "val/acc/block00", "val/acc/block01")] == pytest.approx(
        accuracies
    )
    expected = torch.nn.functional.cross_entropy(scores[0].detach(), batch.label)
    assert answers[True]["val/loss"] == pytest.approx(float(expected), rel=1e-5)


def test_deterministic_runs_are_equal(learner: Any, digits: Any, trainer: Any, same: Any) -> None:
    models = [learner(dropout=0.2) for _ in range(2)]
    for model in models:
        torch.manual_seed(3)
        trainer(deterministic=True, max_epochs=2).fit(model, digits())
        assert torch.are_deterministic_algorithms_enabled()
    assert same(*models)


def test_the_simple_profiler_times_the_training_step(learner: Any, digits: Any, trainer: Any) -> None:
    runner = trainer(profiler="simple", max_epochs=1)
    runner.fit(learner(), digits())
    summary = runner.profiler.summary()
    assert "training_step" in summary
    assert len(runner.profiler.recorded_durations["[Strategy]SingleDeviceStrategy.training_step"]) == 5


def test_without_a_logger_all_parts_run_and_write_nothing(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path
) -> None:
    parts = [GoodnessMonitor(every_n_steps=1, histogram_every_n_epochs=1), NegativePictures(), RunReport()]
    runner = trainer(logger=False, max_epochs=2, callbacks=parts, log_every_n_steps=1)
    runner.fit(learner(), digits())
    assert {"train/loss", "train/acc", "goodness/pos/block01"} <= runner.callback_metrics.keys()
    assert files(tmp_path) == []


def test_several_loggers_get_the_same_numbers_and_pictures(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loggers = [CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "board"), CSVLogger(tmp_path / "other")]
    runner = trainer(logger=loggers, max_epochs=3, log_every_n_steps=5, callbacks=[NegativePictures()])
    runner.fit(learner(), digits())

    tables = []
    for logger in (loggers[0], loggers[2]):
        with Path(logger.log_dir, "metrics.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
        assert len(list(Path(logger.log_dir).rglob("*.png"))) == 1
    assert tables[0] == tables[1]
    rows = [(int(row["step"]), float(row["val/acc"])) for row in tables[0] if row["val/acc"]]
    assert [step for step, _ in rows] == [4, 9, 14]

    board = events.EventAccumulator(loggers[1].log_dir)
    board.Reload()
    assert [(event.step, pytest.approx(event.value)) for event in board.Scalars("val/acc")] == rows
    assert board.Tags()["images"] == ["negatives"]


def test_early_stopping_counts_epochs_without_progress(learner: Any, digits: Any, trainer: Any, tally: Any) -> None:
    model = learner(optimizer=partial(torch.optim.SGD, lr=0.0))  # nothing changes: epochs 1 and 2 bring no progress
    stop = EarlyStopping("val/acc", mode="max", patience=2)
    runner = trainer(max_epochs=50, callbacks=[stop, tally])
    runner.fit(model, digits())
    assert stop.stopped_epoch == 2
    assert tally.batches[-1] == (2, 4)
    assert len(set(tally.validations)) == 1
