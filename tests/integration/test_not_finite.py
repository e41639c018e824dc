"""Nothing that is not finite is saved over a good checkpoint, or measured without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn

from lightning_ff import CrossEntropy, LinearGoodness, LocalBlock, LocalLearner, LocalNetwork, NonFiniteLoss, SumReadout
from lightning_ff.data import BatchLoader, Digits

QUIET: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}


class Masked(nn.Linear):
    """Has a buffer with infinite values, as the mask of an attention."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


def learner() -> LocalLearner:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Flatten(), Masked(64, 12), nn.BatchNorm1d(12), nn.ReLU()), nn.Linear(12, 8)]
    blocks = [LocalBlock(layer, LinearGoodness(), CrossEntropy()) for layer in layers]
    return LocalLearner(LocalNetwork(blocks, (1, 8, 8), 10, SumReadout()))


def poison(model: LocalLearner, what: str) -> None:
    norm: Any = model.network.blocks[0].layers[2]  # type: ignore[union-attr, index]
    if what == "running_var":
        norm.running_var[3] = torch.nan
    elif what == "running_mean":
        norm.running_mean[3] = torch.inf
    else:
        weight = model.local_optimizers.parameters("block01")[0]
        model.local_optimizers.state[weight]["exp_avg_sq"].view(-1)[2] = torch.inf


class Poison(Callback):
    """Poisons the state after a batch in the second epoch."""

    def __init__(self, what: str) -> None:
        self.what = what

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == 11:
            poison(pl_module, self.what)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("running_var", "the buffers of block00 are no longer finite"),
        ("running_mean", "the buffers of block00 are no longer finite"),
        ("exp_avg_sq", "the optimizer states of block01 are no longer finite"),
    ],
)
@pytest.mark.parametrize("validates", [True, False])
def test_the_last_checkpoint_stays_good(what: str, message: str, validates: bool, tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_last=True)
    trainer = Trainer(**QUIET, max_epochs=4, callbacks=[keep, Poison(what)], limit_train_batches=8,
                      limit_val_batches=1.0 if validates else 0)  # fmt: skip
    with pytest.raises(NonFiniteLoss, match=message):
        trainer.fit(learner(), Digits())
    assert {path.name for path in tmp_path.iterdir()} == {"epoch=0.ckpt", "last.ckpt"}
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 8
    assert [key for key, value in saved["state_dict"].items() if not value.isfinite().all()] == [
        "network.blocks.0.layers.1.mask"
    ]


def images(broken: bool) -> BatchLoader:
    x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    if broken:
        x[7, 0, 3, 3] = torch.nan
    return BatchLoader(x, y, batch_size=10)


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_images_that_are_not_finite_end_an_evaluation(stage: str) -> None:
    def run(broken: bool) -> None:
        trainer = Trainer(**QUIET, max_epochs=2, enable_checkpointing=False)
        loaders = (images(False), images(broken)) if stage == "fit" else (images(broken),)
        getattr(trainer, stage)(learner(), *loaders)

    run(False)
    name = "test" if stage == "test" else "val"
    with pytest.raises(NonFiniteLoss, match=f"{name}/loss is nan, and the weights are finite: check the images"):
        run(True)


def test_weights_that_are_not_finite_are_named_by_a_test() -> None:
    model = learner()
    with torch.no_grad():
        model.network.blocks[1].layers.weight[0] = torch.nan  # type: ignore[union-attr, index]
    with pytest.raises(NonFiniteLoss, match="the weights of block01 are no longer finite"):
        Trainer(**QUIET).test(model, images(False))


def test_images_of_a_training_batch_are_named() -> None:
    trainer = Trainer(**QUIET, max_epochs=1, log_every_n_steps=1, enable_checkpointing=False)
    with pytest.raises(NonFiniteLoss, match=r"the loss of block00 is nan.*the images of this batch have such values"):
        trainer.fit(learner(), images(True))


def test_predictions_that_are_not_finite_warn() -> None:
    trainer = Trainer(**QUIET)
    found: Any = trainer.predict(learner(), images(False))
    assert all(bool(torch.isfinite(batch["scores"]).all()) for batch in found)
    with pytest.warns(UserWarning, match="some predicted scores are NaN or infinite: check the images"):
        found = trainer.predict(learner(), images(True))
    scores: list[Tensor] = [batch["scores"] for batch in found]
    assert [bool(each.isfinite().all()) for each in scores] == [False, True]
