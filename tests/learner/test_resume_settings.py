"""Settings of optimizers and schedulers when a run is resumed from Python."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau, StepLR

from lightning_ff import ForwardForward
from lightning_ff.data import Digits

USUAL: dict[str, Any] = {
    "optimizer": partial(SGD, lr=0.1, momentum=0.5),
    "scheduler": partial(StepLR, step_size=1, gamma=0.5),
}


def fit(file: Path, epochs: int, resume: bool = False, **arguments: Any) -> ForwardForward:
    torch.manual_seed(0)
    model = ForwardForward(10, (1, 8, 8), widths=[6, 5], **{**USUAL, **arguments})
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, limit_train_batches=3, limit_val_batches=2, logger=False,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, Digits(), ckpt_path=file if resume else None)
    if not resume:
        trainer.save_checkpoint(file)
    return model


def test_settings_of_the_checkpoint_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    fit(file, 1)
    message = r"settings of the checkpoint: block00 momentum=0.5 \(here 0.9\); block00 lr=0.1 \(here 0.001\); block01"
    with pytest.warns(UserWarning, match=message):
        model = fit(file, 2, True, optimizer=partial(SGD, lr=0.001, momentum=0.9))
    group = model.local_optimizers.param_groups[0]
    assert (group["lr"], group["momentum"]) == (pytest.approx(0.025), 0.5)
    with pytest.warns(UserWarning, match=r"settings of the checkpoint: block00 gamma=0.5 \(here 0.1\); block01 gamma"):
        model = fit(file, 2, True, scheduler=partial(StepLR, step_size=1, gamma=0.1))
    assert model.local_optimizers.param_groups[0]["lr"] == pytest.approx(0.025)
    fit(file, 2, True)  # equal settings: no warning, which would be an error


def test_a_rate_that_a_plateau_has_lowered_is_no_other_setting(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    lowers: dict[str, Any] = {
        "scheduler": partial(ReduceLROnPlateau, factor=0.5, patience=0, threshold=10.0),
        "scheduler_monitor": "val/acc",
    }
    fit(file, 3, **lowers)
    resumed, unbroken = fit(file, 4, True, **lowers), fit(tmp_path / "b.ckpt", 4, **lowers)
    rates = [model.local_optimizers.param_groups[0]["lr"] for model in (resumed, unbroken)]
    assert rates == [0.1 * 0.5**4] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"optimizer": Adam},
            "the optimizer of block00 is Adam, and the checkpoint has the state of SGD: resume with SGD",
        ),
        ({"block_optimizers": {"block01": Adam}}, "the optimizer of block01 is Adam"),
        ({"scheduler": partial(ExponentialLR, gamma=0.5)}, "the scheduler of block00 is ExponentialLR, .* of StepLR"),
    ],
)
def test_other_classes_are_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    fit(tmp_path / "a.ckpt", 1)
    with pytest.raises(ValueError, match=message):
        fit(tmp_path / "a.ckpt", 2, True, **arguments)


def test_another_network_is_refused_with_its_arguments(tmp_path: Path) -> None:
    fit(tmp_path / "a.ckpt", 1)
    model = ForwardForward(10, (1, 8, 8), widths=[6, 4], **USUAL)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    message = (
        r"of another network: network.blocks.1.layers.1.weight is \(5, 6\) there, and \(4, 6\) here; .*widths=\[6, 5\]"
    )
    with pytest.raises(ValueError, match=message):
        trainer.test(model, Digits(), ckpt_path=tmp_path / "a.ckpt")
