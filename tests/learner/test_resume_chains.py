"""Chains of resumed runs: each ends in the state of the unbroken run, whichever batch a checkpoint is of."""

from __future__ import annotations

import random
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from lightning_ff import ForwardForward, IntervalReadout
from lightning_ff.data import Digits

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]
EPOCHS, BATCHES = 3, 5
STEPS = EPOCHS * BATCHES
VALIDATIONS: list[dict[str, Any]] = [
    {},
    {"val_check_interval": 2},
    {"check_val_every_n_epoch": 2},
    {"limit_val_batches": 0},
]
Seen = list[tuple[str, int]]


class Hooks(Callback):
    """Notes epochs and validations."""

    def __init__(self) -> None:
        self.seen: Seen = []

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append(("start", trainer.global_step))

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append(("end", trainer.global_step))

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append(("validated", trainer.global_step))


def fit(folder: Path, ckpt_path: Path | None = None, data: Any = None, **flags: Any) -> tuple[dict[str, Any], Seen]:
    """Train, with a checkpoint after every batch; returns the state at the end, by name, and the hooks that ran."""
    seed_everything(0, verbose=False)
    parts: dict[str, Any] = {}
    if flags.get("limit_val_batches") != 0:  # parts that a validation changes
        plateau = partial(ReduceLROnPlateau, factor=0.5, patience=0, threshold=10.0)
        parts = {"readout": IntervalReadout(), "scheduler": plateau, "scheduler_monitor": "val/acc"}
    hooks, saves = Hooks(), ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "max_epochs": EPOCHS, "num_sanity_val_steps": 0}
    trainer = Trainer(**quiet, callbacks=[hooks, saves], **flags)
    trainer.fit(ForwardForward(10, (1, 8, 8), widths=[6, 5], **parts), data or digits(), ckpt_path=ckpt_path)
    trainer.save_checkpoint(folder / "end.ckpt")
    state = torch.load(folder / "end.ckpt", weights_only=True)
    del state["callbacks"]  # has paths
    return flat(state), hooks.seen


def digits() -> Digits:
    return Digits(batch_size=20, train_size=10, eval_batch_size=200)


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """Values of nested dicts and lists by name."""
    if isinstance(state, (list, tuple)):
        state = dict(enumerate(state))
    if not isinstance(state, dict):
        return {name: state}
    return {path: value for key, each in state.items() for path, value in flat(each, f"{name}/{key}").items()}


def differing(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    assert one.keys() == two.keys()
    same = {
        key: torch.equal(value, two[key]) if isinstance(value, Tensor) else value == two[key]
        for key, value in one.items()
    }
    return [key for key, equal in same.items() if not equal]


def chains() -> list[tuple[int, ...]]:
    """Batches after which runs are resumed, one run after another."""
    draw = random.Random(0)
    some = [tuple(sorted(draw.sample(range(1, STEPS), draw.randint(1, 3)))) for _ in range(3)]
    return [(5, 7), (5, 10, 13), (4, 6), *some]


@pytest.mark.parametrize("validation", VALIDATIONS, ids=str)
def test_every_chain_ends_as_the_unbroken_run(validation: dict[str, Any], tmp_path: Path) -> None:
    whole, hooks = fit(tmp_path / "0", **validation)
    assert [step for hook, step in hooks if hook == "end"] == [5, 10, 15]
    validated = {step for hook, step in hooks if hook == "validated"}
    assert validated == {0: {5, 10, 15}, 1: {2, 4, 7, 9, 12, 14}, 2: {10}, 3: set()}[VALIDATIONS.index(validation)]
    for chain in chains():
        for before, step in pairwise((0, *chain)):
            end, seen = fit(tmp_path / str(step), tmp_path / str(before) / f"step={step}.ckpt", **validation)
            assert seen == [
                (hook, at) for hook, at in hooks if at > step or (at == step and (hook != "start" or at % 5 == 0))
            ]
        assert differing(whole, end) == [], chain


def test_a_loader_without_a_state_resumes_exactly_between_epochs(tmp_path: Path) -> None:
    """Also from the checkpoint of an epoch's last batch, before its validation."""
    data = digits()
    data.setup("fit")
    samples = [sample for batch in data.train_dataloader() for sample in zip(*batch, strict=True)]
    loader = DataLoader(samples, batch_size=20)  # type: ignore[arg-type]
    whole, _ = fit(tmp_path / "whole", data=loader, limit_val_batches=0)
    end, seen = fit(tmp_path / "again", tmp_path / "whole" / "step=5.ckpt", data=loader, limit_val_batches=0)
    assert seen == [("end", 5), ("start", 5), ("end", 10), ("start", 10), ("end", 15)]
    assert differing(whole, end) == []
