"""Fixtures of the tests against a real Trainer: a tiny learner, a few real digits, a quiet Trainer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_ff import ForwardForward
from lightning_ff.data import Digits

# Lightning's warnings about checkpoints here: on monitors, and on a callback that is missing in a resumed run.
LIGHTNING_SAYS = (
    "Using ModelCheckpoint with manual optimization",
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for message in LIGHTNING_SAYS:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))


class Tally(Callback):
    """Counts batches and steps, and records the values of training."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.losses: list[float] = []
        self.rates: list[list[float]] = []
        self.validations: list[float] = []
        self.validation_batches = 0

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append((trainer.current_epoch, batch_idx))
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))

    @override
    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.validation_batches += 1

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validations.append(float(trainer.callback_metrics["val/acc"]))


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def digits() -> Callable[..., Digits]:
    """80 training digits in 5 batches of 16, 40 for validation."""
    small: dict[str, Any] = {"batch_size": 16, "eval_batch_size": 64, "val_size": 40, "train_size": 8}
    return lambda **arguments: Digits(**{**small, **arguments})


@pytest.fixture
def learner() -> Callable[..., ForwardForward]:
    """Two blocks of 16 and 12 units; the same weights each time."""
    small: dict[str, Any] = {
        "num_classes": 10,
        "input_shape": (1, 8, 8),
        "widths": [16, 12],
        "optimizer": partial(torch.optim.Adam, lr=0.01),
    }

    def make(**arguments: Any) -> ForwardForward:
        torch.manual_seed(1)
        if "blocks" in arguments:
            arguments.setdefault("widths", None)
        return ForwardForward(**{**small, **arguments})

    return make


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    quiet: dict[str, Any] = {
        "default_root_dir": tmp_path,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
    }
    return lambda **arguments: Trainer(**{**quiet, **arguments})


@pytest.fixture
def world(learner: Any, digits: Any, trainer: Any) -> SimpleNamespace:
    """What rows of bad input act on: how to make a learner or a Trainer, and a fit with both."""

    def fit(model: Any, train_dataloaders: Any = None, **arguments: Any) -> None:
        data = digits() if train_dataloaders is None else train_dataloaders
        trainer(**{"max_epochs": -1 if "max_steps" in arguments else 1, **arguments}).fit(model, data)

    return SimpleNamespace(learner=learner, trainer=trainer, fit=fit)


@pytest.fixture
def weights() -> Callable[[torch.nn.Module], dict[str, Tensor]]:
    """A copy of the weights and buffers of a module."""
    return lambda module: {name: value.detach().clone() for name, value in module.state_dict().items()}


@pytest.fixture
def same(weights: Callable[[torch.nn.Module], dict[str, Tensor]]) -> Callable[..., bool]:
    """Whether weights and buffers of two modules (or copies of them) are equal to the last bit."""

    def compare(a: Any, b: Any) -> bool:
        a, b = (weights(x) if isinstance(x, torch.nn.Module) else x for x in (a, b))
        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

    return compare
