"""Learning rates, clipping and optimizers under a real Trainer, against closed forms and plain torch."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    ExponentialLR,
    LinearLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from lightning_ff import CosineToEnd, LinearReadout, PixelOverlay
from lightning_ff.negatives import wrong_labels

START = 0.01


def cosine(step: int, total: int) -> float:
    return START * (1 + math.cos(math.pi * step / total)) / 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_epoch_scheduler_steps_once_an_epoch(
    learner: Any, digits: Any, trainer: Any, tally: Any, accumulate: int
) -> None:
    model = learner(scheduler=partial(ExponentialLR, gamma=0.5), accumulate_grad_batches=accumulate)
    runner = trainer(max_epochs=3, callbacks=[tally])
    runner.fit(model, digits())
    assert tally.rates == [[START * 0.5**epoch] * 2 for epoch in range(3) for _ in range(5)]
    assert runner.optimizers[0].param_groups[0]["lr"] == START * 0.5**3


@pytest.mark.parametrize("step", ["batch", "block"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_scheduler_steps_with_every_optimizer_step(
    learner: Any, digits: Any, trainer: Any, tally: Any, accumulate: int, step: str
) -> None:
    model = learner(
        scheduler=partial(LinearLR, start_factor=0.1, total_iters=9),
        scheduler_interval="step",
        accumulate_grad_batches=accumulate,
        step=step,
    )
    trainer(max_epochs=2, callbacks=[tally]).fit(model, digits())
    steps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] if accumulate == 1 else [0, 0, 1, 1, 2, 3, 3, 4, 4, 5]
    assert tally.rates == [[pytest.approx(START * (0.1 + 0.9 * number / 9))] * 2 for number in steps]


@pytest.mark.parametrize("limit", [{"max_epochs": 4}, {"max_steps": 20}, {"max_epochs": 50, "max_steps": 18}])
def test_a_cosine_over_epochs_ends_with_the_run(
    learner: Any, digits: Any, trainer: Any, tally: Any, limit: dict[str, int]
) -> None:
    trainer(callbacks=[tally], **limit).fit(learner(scheduler=CosineToEnd), digits())
    assert [rates[0] for rates in tally.rates[::5]] == pytest.approx([cosine(epoch, 4) for epoch in range(4)])


@pytest.mark.parametrize("limit", [{"max_epochs": 4}, {"max_steps": 12}, {"max_epochs": 50, "max_steps": 8}])
def test_a_cosine_over_steps_ends_with_the_run_when_accumulating(
    learner: Any, digits: Any, trainer: Any, tally: Any, limit: dict[str, int]
) -> None:
    model = learner(scheduler=CosineToEnd, scheduler_interval="step", accumulate_grad_batches=2)
    runner = trainer(callbacks=[tally], **limit)
    runner.fit(model, digits())
    total = limit.get("max_steps", 12)  # 3 steps an epoch
    steps = [3 * epoch + number // 2 for epoch, number in tally.batches]
    assert runner.global_step == total
    assert [rates[0] for rates in tally.rates] == pytest.approx([cosine(step, total) for step in steps])
    assert runner.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_a_cosine_after_a_warmup_ends_with_the_run(learner: Any, digits: Any, trainer: Any, tally: Any) -> None:
    """Two epochs of warm-up, then torch's own SequentialLR switches to a cosine for the remaining four."""

    def warmed(optimizer: Any) -> SequentialLR:
        return SequentialLR(optimizer, [ConstantLR(optimizer, 0.5, 9), CosineToEnd(optimizer)], [2])

    trainer(max_epochs=6, callbacks=[tally]).fit(learner(scheduler=warmed), digits())
    after = [cosine(epoch, 4) for epoch in range(4)]
    assert [rates[0] for rates in tally.rates[::5]] == pytest.approx([START / 2, START / 2, *after])


def test_a_chained_cosine_ends_with_the_run(learner: Any, digits: Any, trainer: Any, tally: Any) -> None:
    def chained(optimizer: Any) -> ChainedScheduler:
        return ChainedScheduler([ConstantLR(optimizer, 0.5, 9), CosineToEnd(optimizer)])

    trainer(max_epochs=4, callbacks=[tally]).fit(learner(scheduler=chained), digits())
    assert tally.rates[-1][0] < START / 4


def test_a_plateau_scheduler_steps_after_validation(learner: Any, digits: Any, trainer: Any, tally: Any) -> None:
    # Nothing is learned, so the loss never falls: with a patience of 1 the rate halves in every second epoch.
    model = learner(
        optimizer=partial(SGD, lr=1e-30),
        scheduler=partial(ReduceLROnPlateau, factor=0.5, patience=1, eps=0.0),
        scheduler_monitor="val/loss",
    )
    trainer(max_epochs=7, callbacks=[tally]).fit(model, digits())
    halvings = [0, 0, 0, 1, 1, 2, 2]
    assert [rates[0] for rates in tally.rates[::5]] == [1e-30 * 0.5**number for number in halvings]


def test_a_plateau_scheduler_sees_this_validations_metric(learner: Any, digits: Any, trainer: Any, tally: Any) -> None:
    seen: list[float] = []

    class Watching(ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: Any = None) -> None:
            seen.append(float(metrics))
            super().step(metrics)

    model = learner(scheduler=partial(Watching, mode="max"), scheduler_monitor="val/acc")
    trainer(max_epochs=4, val_check_interval=0.4, callbacks=[tally]).fit(model, digits())
    assert seen[::2] == pytest.approx(tally.validations)  # one scheduler per block sees each
    assert len(tally.validations) == 8
    assert len(set(tally.validations)) > 1


def test_names_in_the_learning_rate_monitor(learner: Any, digits: Any, trainer: Any, tmp_path: Path) -> None:
    model = learner(
        readout=LinearReadout(),
        scheduler=partial(ExponentialLR, gamma=0.5),
        block_optimizers={"readout": partial(SGD, lr=0.25)},
    )
    monitor = LearningRateMonitor("epoch")
    trainer(max_epochs=2, callbacks=[monitor], logger=CSVLogger(tmp_path)).fit(model, digits())
    assert monitor.lrs == {
        "lr-BlockOptimizers/block00": [START, START / 2],
        "lr-BlockOptimizers/block01": [START, START / 2],
        "lr-BlockOptimizers/readout": [0.25, 0.125],
    }


def test_optimizers_by_name_and_wildcard(learner: Any, digits: Any, trainer: Any) -> None:
    model = learner(
        widths=[8, 8, 8],
        readout=LinearReadout(),
        block_optimizers={"block*": partial(SGD, lr=0.5), "block01": partial(RMSprop, lr=0.125)},
    )
    trainer(max_steps=1).fit(model, digits())
    found = {
        name: (type(inner), inner.param_groups[0]["lr"]) for name, inner in model.local_optimizers.by_block.items()
    }
    assert found == {
        "block00": (SGD, 0.5),
        "block01": (RMSprop, 0.125),
        "block02": (SGD, 0.5),
        "readout": (Adam, START),
    }


def bound(gradients: list[Tensor], limit: float | None, algorithm: str) -> list[Tensor]:
    """Clipped gradients of one block, by the formula."""
    if limit is None:
        return gradients
    if algorithm == "value":
        return [g.clamp(-limit, limit) for g in gradients]
    norm = torch.cat([g.flatten() for g in gradients]).square().sum().sqrt()
    return [g * min(1.0, float(limit / (norm + 1e-6))) for g in gradients]


def plain_steps(model: Any, data: Any, rate: float, steps: int, limit: float | None, algorithm: str) -> list[Tensor]:
    """Forward-Forward by stochastic gradient descent, written out: overlay, RMS, mean of squares, softplus."""
    layers = [
        (block.layers[1].weight.detach().clone(), block.layers[1].bias.detach().clone()) for block in model.blocks
    ]
    data.setup("fit")
    for batch in list(data.train_dataloader())[:steps]:
        wrong = wrong_labels(batch.label, 10, batch.index, seed=0, epoch=0)
        x = batch.image.flatten(1).repeat(2, 1)
        x[:, :10] = F.one_hot(torch.cat((batch.label, wrong)), 10).float()
        half = len(batch.label)
        for k, layer in enumerate(layers):
            weight, bias = (p.requires_grad_() for p in layer)
            x = x / x.square().mean(1, keepdim=True).add(1e-8).sqrt()
            h = (x @ weight.T + bias).relu()
            goodness = h.square().mean(1)
            loss = F.softplus(1 - goodness[:half]).mean() + F.softplus(goodness[half:] - 1).mean()
            gradients = bound(list(torch.autograd.grad(loss, (weight, bias))), limit, algorithm)
            layers[k] = (weight.detach() - rate * gradients[0], bias.detach() - rate * gradients[1])
            x = h.detach()
    return [p for layer in layers for p in layer]


@pytest.mark.parametrize("step", ["batch", "block"])
@pytest.mark.parametrize(("limit", "algorithm"), [(None, "norm"), (0.05, "norm"), (0.005, "value"), (100.0, "norm")])
def test_clipping_is_per_block_as_in_plain_torch(
    learner: Any, digits: Any, trainer: Any, limit: float | None, algorithm: str, step: str
) -> None:
    model = learner(
        optimizer=partial(SGD, lr=0.5), gradient_clip_val=limit, gradient_clip_algorithm=algorithm, step=step
    )
    expected = plain_steps(model, digits(), 0.5, 4, limit, algorithm)
    trainer(max_steps=4).fit(model, digits())
    for parameter, wanted in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), wanted, rtol=0, atol=1e-6)
    unclipped = plain_steps(learner(), digits(), 0.5, 4, None, "norm")
    clips = any((a - b).abs().max() > 1e-3 for a, b in zip(expected, unclipped, strict=True))
    assert clips == (limit is not None and limit < 1)


@pytest.mark.parametrize("mode", ["exponential", "linear"])
def test_the_learning_rate_finder_sweeps_and_suggests(
    learner: Any, digits: Any, trainer: Any, same: Any, weights: Any, mode: str
) -> None:
    model, data = learner(dropout=0.2, scheduler=CosineToEnd, labels=PixelOverlay(1.0)), digits()
    before, runner = weights(model), trainer(max_epochs=8)  # which bounds the finder too
    finder = Tuner(runner).lr_find(
        model, data, min_lr=1e-5, max_lr=1.0, num_training=40, mode=mode, early_stop_threshold=None, update_attr=False
    )
    rates = finder.results["lr"]
    assert len(rates) == len(finder.results["loss"]) == 40
    if mode == "exponential":
        expected = [1e-5 * 1e5 ** ((step + 1) / 40 if step else 0) for step in range(40)]
    else:
        expected = [1e-5 + ((step + 1) / 40 if step else 0) * (1 - 1e-5) for step in range(40)]
    assert rates == pytest.approx(expected)
    assert 1e-5 < finder.suggestion() < 1.0
    assert len({round(loss, 6) for loss in finder.results["loss"]}) > 30
    assert same(model, before)
    assert runner.global_step == 0


def test_a_run_after_the_finder_is_the_run_without_it(learner: Any, digits: Any, trainer: Any, same: Any) -> None:
    with_finder, without = (learner(dropout=0.2, accumulate_grad_batches=4, scheduler=CosineToEnd) for _ in range(2))
    runner = trainer(max_epochs=6)
    finder = Tuner(runner).lr_find(with_finder, digits(), num_training=11, early_stop_threshold=None, update_attr=False)
    assert len(finder.results["lr"]) == 11 // 2 * 5 + 4  # batches: 2 steps in 5, the last step after 4
    for model, started in ((with_finder, runner), (without, trainer(max_epochs=6))):
        torch.manual_seed(11)
        started.fit(model, digits())
    assert same(with_finder, without)


def test_the_finder_as_a_callback_leaves_the_run_as_it_was(learner: Any, digits: Any, trainer: Any, same: Any) -> None:
    with_finder, without = (learner(dropout=0.2, scheduler=CosineToEnd) for _ in range(2))
    find = LearningRateFinder(num_training_steps=8, update_attr=False)
    for model, callbacks in ((with_finder, [find]), (without, [])):
        torch.manual_seed(11)
        trainer(max_epochs=2, callbacks=callbacks).fit(model, digits())
    assert len(find.optimal_lr.results["lr"]) == 8
    assert same(with_finder, without)


def test_an_optimizer_with_groups_of_its_own(learner: Any, digits: Any, trainer: Any) -> None:
    def split(parameters: Any) -> AdamW:
        weight, bias = parameters
        return AdamW([{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}], lr=0.02, weight_decay=0.5)

    model = learner(optimizer=split)
    runner = trainer(max_steps=2)
    runner.fit(model, digits())
    names = [(group["name"], group["weight_decay"]) for group in runner.optimizers[0].param_groups]
    assert names == [("block00/0", 0.5), ("block00/1", 0.0), ("block01/0", 0.5), ("block01/1", 0.0)]
