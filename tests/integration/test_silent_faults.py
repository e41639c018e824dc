"""Wrong use that would train, save or measure something else without a word."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR

from lightning_ff import ForwardForward, GoodnessMonitor, LinearReadout, NegativeContext, WrongLabel
from lightning_ff.data import BatchLoader, Digits

pytestmark = pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
QUIET: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}


def learner(**arguments: Any) -> ForwardForward:
    seed_everything(0, verbose=False)
    return ForwardForward(10, (1, 8, 8), widths=[8, 8], **arguments)


def fit(model: LightningModule, *callbacks: Callback, **flags: Any) -> Trainer:
    usual = {"max_epochs": 2, "limit_train_batches": 10, "limit_val_batches": 1, "enable_checkpointing": False}
    trainer = Trainer(**{**QUIET, **usual, **flags}, callbacks=list(callbacks))
    trainer.fit(model, Digits())
    return trainer


class Labels(WrongLabel):
    """Keeps the labels of all negatives, by their one-hot code."""

    def forward(self, x: Tensor, y: Tensor, index: Tensor | None, context: NegativeContext) -> Tensor:
        made = super().forward(x, y, index, context)
        self.seen = torch.cat((getattr(self, "seen", made[:0]), made))
        return made


@pytest.mark.parametrize("whole", [True, False])
def test_a_loader_in_place_of_its_module_keeps_what_the_module_says(whole: bool) -> None:
    data = Digits(held_out=[3, 7], scaling="standard")
    data.setup("fit")
    model = learner(negatives=Labels())
    trainer = Trainer(**QUIET, max_epochs=1, enable_checkpointing=False)
    trainer.fit(model, data) if whole else trainer.fit(model, data.train_dataloader(), data.val_dataloader())
    assert model.held_out == (3, 7)
    rows = model.negatives.seen[:, 0, 0]  # type: ignore[union-attr]
    assert float(rows.max()) == pytest.approx(data.input_max)
    assert 1.5 < data.input_max < 2.0
    assert not {3, 7} & set(rows[:, :10].argmax(1).tolist()) if rows.shape[1] >= 10 else True


def test_inputs_of_another_layout_are_refused() -> None:
    model = ForwardForward(10, (3, 8, 8), widths=[8])
    loader = BatchLoader(torch.rand(4, 8, 8, 3), torch.arange(4))
    message = r"inputs of shape \(8, 8, 3\) are of another layout than input_shape=\(3, 8, 8\): permute the axes"
    for use in ("fit", "validate", "test"):
        with pytest.raises(ValueError, match=message):
            getattr(Trainer(**QUIET, max_epochs=1), use)(model, loader)


def test_metrics_of_training_exist_at_the_end_of_every_epoch(tmp_path: Path) -> None:
    """Also where an epoch has fewer batches than the log interval: they are means of the epoch."""
    losses: list[float] = []
    found: list[float] = []

    class Kept(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
            losses.append(float(outputs["loss"]))

        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            found.append(float(trainer.callback_metrics["train/loss"]))

    saves = ModelCheckpoint(tmp_path, "{step}-{train/loss:.4f}", auto_insert_metric_name=False, save_top_k=-1)
    fit(learner(), Kept(), EarlyStopping("train/loss"), saves, enable_checkpointing=True)
    means = [sum(losses[:10]) / 10, sum(losses[10:]) / 10]
    assert found == pytest.approx(means, rel=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{10 * (i + 1)}-{mean:.4f}.ckpt" for i, mean in enumerate(means)
    }


def test_the_log_interval_counts_batches_over_epochs() -> None:
    """What is logged for callbacks at the end of a short epoch leaves the mean of the interval as it is."""
    losses: list[float] = []
    logged: dict[int, float] = {}

    class Kept(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
            losses.append(float(outputs["loss"]))
            if trainer.global_step == 25:
                logged[25] = float(trainer.callback_metrics["train/loss"])

    fit(learner(), Kept(), max_epochs=3, log_every_n_steps=25)
    assert logged[25] == pytest.approx(sum(losses[:25]) / 25, rel=1e-5)


def test_checkpoints_monitor_metrics_of_training(tmp_path: Path) -> None:
    saves = ModelCheckpoint(tmp_path, "{step}", monitor="train/acc", mode="max", every_n_train_steps=3, save_top_k=-1)
    fit(learner(), saves, enable_checkpointing=True, log_every_n_steps=1)
    assert {path.name for path in tmp_path.iterdir()} == {f"step={step}.ckpt" for step in (3, 6, 9, 12, 15, 18)}


def test_checkpoints_by_time_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"train_time_interval=...\) saves nothing under manual optimisation.*every_n_train"
    ):
        fit(learner(), ModelCheckpoint(tmp_path, train_time_interval=timedelta(seconds=1)), enable_checkpointing=True)


class At(Callback):
    """Sets `requires_grad` of a part when an epoch begins."""

    def __init__(self, epoch: int, part: str, value: bool) -> None:
        self.epoch, self.part, self.value = epoch, part, value

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            pl_module.get_submodule(self.part).requires_grad_(self.value)


@pytest.mark.parametrize("part", ["network.blocks.0", "network.readout", "network"])
def test_a_part_frozen_in_training_stays_and_the_others_learn(part: str) -> None:
    model, kept = learner(readout=LinearReadout(skip_first=False)), {}

    class Keeps(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            kept[trainer.current_epoch] = {n: p.detach().clone() for n, p in pl_module.named_parameters()}

    fit(model, At(1, part, False), At(2, part, True), Keeps(), max_epochs=3)
    for name in kept[0]:
        frozen = name.startswith(part)
        assert torch.equal(kept[0][name], kept[1][name]) == frozen, name
        assert not torch.equal(kept[1][name], kept[2][name]), name


def test_a_part_thawed_in_training_has_no_optimizer() -> None:
    model = learner()
    model.network.blocks[0].requires_grad_(False)
    message = r"blocks.0.layers.1.weight requires gradients since training began, and no optimizer steps it"
    with pytest.raises(ValueError, match=message):
        fit(model, At(1, "network.blocks.0", True))


class Rate(Enum):
    """A learning rate."""

    LOW = 0.001


def test_numpy_values_are_saved_as_plain_ones(tmp_path: Path) -> None:
    model = learner(
        optimizer=partial(Adam, lr=np.logspace(-3, -2, 2)[0], betas=(np.float64(0.5), np.float64(0.9))),
        scheduler=partial(StepLR, step_size=np.int64(1), gamma=np.float64(0.5)),
        block_optimizers={"block01": partial(SGD, lr=Rate.LOW.value, momentum=np.float64(0.5))},
        negatives=WrongLabel(seed=np.int64(3)),  # type: ignore[arg-type]
    )
    trainer = fit(model)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert saved["optimizer_states"][0]["param_groups"][0]["betas"] == (0.5, 0.9)
    assert ForwardForward.load_from_checkpoint(tmp_path / "a.ckpt").negatives.seed == 3  # type: ignore[union-attr]
    fit(
        learner(**{name: getattr(model, name) for name in ("optimizer", "scheduler", "block_optimizers")}), max_epochs=1
    )


def test_a_monitor_of_goodness_needs_a_learner() -> None:
    with pytest.raises(
        TypeError, match="GoodnessMonitor logs the goodness of a LocalLearner, not of BoringModel: remove"
    ):
        Trainer(**QUIET, callbacks=[GoodnessMonitor()], max_epochs=1).fit(BoringModel())
