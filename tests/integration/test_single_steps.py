"""Details that no other test holds: each is one step of a computation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR

from lightning_ff import ForwardForward, IntervalReadout, LinearReadout
from lightning_ff.data import BatchLoader, Digits
from lightning_ff.metrics import quantile_median_ensemble, treves_rolls_sparsity

QUIET: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
QUIET |= {"enable_checkpointing": False, "limit_val_batches": 0}


def learner(**arguments: Any) -> ForwardForward:
    seed_everything(0, verbose=False)
    return ForwardForward(10, (1, 8, 8), widths=[8, 8], **{"optimizer": partial(SGD, lr=0.1), **arguments})


class Outputs(Callback):
    """Keeps what a training step returns."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.seen.append(outputs)


@pytest.mark.parametrize("reads", [False, True])
def test_the_loss_is_the_sum_over_blocks_without_the_readout(reads: bool) -> None:
    model, kept = learner(readout=LinearReadout(skip_first=False) if reads else None), Outputs()
    trainer = Trainer(**QUIET, max_epochs=1, limit_train_batches=6, log_every_n_steps=3, callbacks=[kept])
    trainer.fit(model, Digits())
    for outputs in kept.seen:
        blocks = [outputs["losses"][name] for name in ("block00", "block01")]
        assert float(outputs["loss"]) == pytest.approx(float(sum(blocks)))
    last = [outputs["losses"] for outputs in kept.seen[3:]]
    logged = trainer.callback_metrics
    for name in ("block00", "block01", *(["readout"] if reads else [])):
        assert float(logged[f"train/loss/{name}"]) == pytest.approx(sum(float(each[name]) for each in last) / 3)
    assert float(logged["train/loss"]) == pytest.approx(sum(float(o["loss"]) for o in kept.seen[3:]) / 3)


def test_epoch_schedulers_step_once_an_epoch_under_accumulation() -> None:
    model = learner(scheduler=partial(ExponentialLR, gamma=0.5), accumulate_grad_batches=4)
    Trainer(**QUIET, max_epochs=3, limit_train_batches=6).fit(model, Digits())
    assert [group["lr"] for group in model.local_optimizers.param_groups] == pytest.approx([0.1 * 0.5**3] * 2)


class SaveAt(Callback):
    """Saves a checkpoint after a number of batches."""

    def __init__(self, batch: int, file: Path) -> None:
        self.batch, self.file = batch, file

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 == self.batch:
            trainer.save_checkpoint(self.file)


@pytest.mark.filterwarnings("ignore:the checkpoint was made after")
def test_an_epoch_that_begins_again_has_no_accumulated_gradients(tmp_path: Path) -> None:
    """The checkpoint holds gradients of a batch; the epoch begins again, since batches have another size."""
    file = tmp_path / "a.ckpt"
    model = learner(accumulate_grad_batches=4)
    Trainer(**QUIET, max_epochs=1, callbacks=[SaveAt(2, file)]).fit(model, Digits(batch_size=100))
    assert torch.load(file, weights_only=True)["gradients"]
    resumed = learner(accumulate_grad_batches=4)
    Trainer(**QUIET, max_epochs=1).fit(resumed, Digits(batch_size=200), ckpt_path=file)
    again = learner(accumulate_grad_batches=4)  # no step was made before
    Trainer(**QUIET, max_epochs=1).fit(again, Digits(batch_size=200))
    for one, two in zip(resumed.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_nothing_is_refreshed_where_nothing_steps() -> None:
    """A batch that only accumulates does not run a block again."""
    model, runs = learner(step="block", refresh_output=True, accumulate_grad_batches=2), []
    model.blocks[0].layers.register_forward_hook(lambda module, x, h: runs.append(len(h)) if len(h) == 40 else None)
    Trainer(**QUIET, max_epochs=1, limit_train_batches=4, log_every_n_steps=1000).fit(model, Digits(batch_size=20))
    assert len(runs) == 4 + 2


def test_the_quantile_is_interpolated() -> None:
    values = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    values[:, 1] = torch.tensor([1.0, 2.0, 3.0])  # the median 2 against quantiles of 0, 0, 0, 1, 2, 3
    for share in (0.75, 0.79, 0.81):
        expected = np.median(values.numpy(), 0) > np.quantile(values.numpy(), share)
        assert quantile_median_ensemble(values, share).tolist() == expected.tolist()


def test_the_treves_rolls_sparsity_of_activities_of_both_signs_is_that_of_their_sizes() -> None:
    h = torch.tensor([[1.0, -1.0, 3.0, 0.0]])
    assert float(treves_rolls_sparsity(h)) == pytest.approx(1 - (5 / 4) ** 2 / (11 / 4))
    assert torch.equal(treves_rolls_sparsity(h), treves_rolls_sparsity(h.abs()))


def test_the_first_of_equal_intervals_is_kept() -> None:
    readout, label = IntervalReadout(), torch.tensor([0, 1])
    readout.build([torch.Size([2])] * 3, 2)
    right, wrong = torch.eye(2), torch.eye(2).flip(0) * 0.1
    readout.observe([right, wrong, right], label)
    readout.fit(lambda counts: counts)
    assert readout.interval == (0, 0)


def test_a_small_training_set_is_drawn_by_a_key_of_its_own() -> None:
    """It is no continuation of the draw of the validation images: other sizes of these leave most of it."""
    rows = {}
    for size in (0.0, 0.1, 0.2):
        data = Digits(val_size=size, train_size=20)
        data.setup("fit")
        loader: BatchLoader = data.train_dataloader()
        rows[size] = loader.index
        validation = data.val_dataloader()
        if isinstance(validation, BatchLoader):
            assert not set(rows[size].tolist()) & set(validation.index.tolist())
    whole = Digits(val_size=0.2)
    whole.setup("fit")
    drawn: Any = whole.val_dataloader()
    small = Digits(val_size=0.0, train_size=36)  # as many of each class as are drawn for validation, or so
    small.setup("fit")
    shared = set(small.train_dataloader().index.tolist()) & set(drawn.index.tolist())
    assert len(shared) < 0.5 * len(drawn.index)  # the same key would draw the same images
