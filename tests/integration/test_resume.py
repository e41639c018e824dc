"""A resumed run equals the uninterrupted run bit for bit: in a new process, and from every type of checkpoint.

`python -m tests.integration.test_resume FOLDER` resumes all cases in a folder.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch.callbacks as lightning_callbacks
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import ExponentialLR, LinearLR, ReduceLROnPlateau

from lightning_ff import (
    AllWrongLabels,
    CosineToEnd,
    FixedPool,
    ForwardForward,
    HardLabel,
    HybridImages,
    LinearReadout,
    MineNegatives,
    MixNegatives,
    PeerNormalization,
    RefreshNegatives,
    SwitchNegatives,
    Unlabelled,
    WrongLabel,
)
from lightning_ff.data import Digits

ROOT = Path(__file__).parents[2]
STEP = 8  # of 15: three of five batches into epoch 1


class Case(NamedTuple):
    """A learner's arguments, the callbacks beside it, and where it is resumed."""

    learner: dict[str, Any] = {}  # noqa: RUF012
    callbacks: Callable[[], list[Callback]] = list
    step: int = STEP


HARD = partial(HardLabel, start_epoch=0, fraction=1.0)
CASES = {
    "wrong labels": Case(),
    "hard labels": Case({"negatives": HardLabel(fraction=0.5, start_epoch=1)}),
    "mining": Case({}, lambda: [MineNegatives(fraction=0.5, above=0.0)]),
    "switching": Case({}, lambda: [SwitchNegatives({0: WrongLabel(seed=4), 1: HARD(), 2: AllWrongLabels()})]),
    "mixing": Case({}, lambda: [MixNegatives([WrongLabel(), HARD()], start=[1.0, 0.0], end=[0.0, 1.0], epochs=2)]),
    "refreshing": Case({"negatives": FixedPool(seed=2)}, lambda: [RefreshNegatives()]),
    "mining, switching, refreshing": Case(
        {},
        lambda: [
            MineNegatives(fraction=0.5, above=0.0),
            SwitchNegatives({0: FixedPool(seed=1), 2: FixedPool(seed=2)}),
            RefreshNegatives(),
        ],
    ),
    "unsupervised": Case({"labels": Unlabelled(), "readout": LinearReadout(), "negatives": HybridImages()}),
    "accumulation": Case(
        {
            "accumulate_grad_batches": 2,
            "gradient_clip_val": 0.1,
            "scheduler": partial(LinearLR, start_factor=0.1, total_iters=9),
            "scheduler_interval": "step",
        },
        step=4,  # of 9: two of five batches into epoch 1
    ),
    "all at once": Case(
        {
            "scheduler": CosineToEnd,
            "block_optimizers": {"block01": partial(SGD, lr=0.1, momentum=0.9), "readout": partial(AdamW, lr=0.02)},
            "terms": [PeerNormalization()],
            "readout": LinearReadout(skip_first=False, view="positive"),
            "augment": nn.Dropout(0.1),
            "step": "block",
        }
    ),
    "plateau": Case(
        {"scheduler": partial(ReduceLROnPlateau, factor=0.5, patience=0, mode="max"), "scheduler_monitor": "val/acc"}
    ),
}
if hasattr(lightning_callbacks, "EMAWeightAveraging"):
    CASES["averaging"] = Case({}, lambda: [lightning_callbacks.EMAWeightAveraging(decay=0.75)])


def build(**arguments: Any) -> ForwardForward:
    settings: dict[str, Any] = {"widths": [16, 12], "dropout": 0.2, "optimizer": partial(Adam, lr=0.01), **arguments}
    return ForwardForward(10, (1, 8, 8), **settings)


def run(folder: Path, model: ForwardForward, *callbacks: Callback, resume: Path | None = None, **arguments: Any) -> Any:
    """Train on 5 shuffled batches an epoch; returns all that the run leaves behind."""
    settings: dict[str, Any] = {"max_epochs": 3, "num_sanity_val_steps": 0, **arguments}
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        callbacks=list(callbacks),
        **settings,
    )
    data = Digits(batch_size=16, eval_batch_size=64, val_size=40, train_size=8)
    trainer.fit(model, data, ckpt_path=resume)
    return {
        "weights": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "rates": [group["lr"] for group in trainer.optimizers[0].param_groups],
        "callbacks": {c.state_key: c.state_dict() for c in callbacks if not isinstance(c, ModelCheckpoint)},
        "negatives": repr(model.negatives),
        "random": torch.get_rng_state(),
        "counters": [trainer.current_epoch, trainer.global_step],
    }


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Where two nested collections of tensors and plain values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{name}: {a.keys() ^ b.keys()}"]
        return [found for key in a for found in differences(a[key], b[key], f"{name}/{key}")]
    if isinstance(a, (list, tuple)) and len(a) == len(b):
        return [found for i, pair in enumerate(zip(a, b, strict=True)) for found in differences(*pair, f"{name}/{i}")]
    if isinstance(a, Tensor):
        return [] if torch.equal(a, b) else [f"{name}: {(a.double() - b.double()).abs().max()}"]
    return [] if a == b else [f"{name}: {a} != {b}"]


def resume_all(folder: Path) -> None:
    for case in folder.iterdir():
        settings = CASES[case.name]
        torch.manual_seed(1000)
        model = build(**settings.learner)
        left = run(folder, model, *settings.callbacks(), resume=case / f"step={settings.step}.ckpt")
        torch.save(left, case / "resumed.pt")


@pytest.fixture(scope="module")
def straight(python: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every case leaves behind when it runs straight through, after a new process has resumed all of them."""
    folder, left = tmp_path_factory.mktemp("resume"), {}
    for name, case in CASES.items():
        torch.manual_seed(5)
        keep = ModelCheckpoint(folder / name, "{step}", every_n_train_steps=1, save_top_k=-1)
        left[name] = {"folder": folder / name, **run(folder, build(**case.learner), *case.callbacks(), keep)}
    command = [python, "-m", "tests.integration.test_resume", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return left


@pytest.mark.parametrize("name", CASES)
def test_a_new_process_goes_on_in_the_middle_of_an_epoch(straight: dict[str, Any], name: str) -> None:
    expected = straight[name]
    folder = expected.pop("folder")
    resumed = torch.load(folder / "resumed.pt", weights_only=False)
    assert differences(expected, resumed) == []
    before = torch.load(folder / f"step={CASES[name].step}.ckpt", weights_only=True)
    assert before["epoch"] == 1
    assert not torch.equal(
        before["state_dict"]["network.blocks.0.layers.1.weight"], next(iter(resumed["weights"].values()))
    )


CADENCES = {
    "batches": {"every_n_train_steps": 1},
    "epochs": {"save_on_train_epoch_end": True},
    "validations": {"save_on_train_epoch_end": False},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "epoch": {"scheduler": partial(ExponentialLR, gamma=0.5)},
    "step": {"scheduler": partial(LinearLR, start_factor=0.1, total_iters=12), "scheduler_interval": "step"},
    "cosine": {"scheduler": CosineToEnd},
    "cosine steps": {"scheduler": CosineToEnd, "scheduler_interval": "step", "accumulate_grad_batches": 2},
}


def resume_from_each(
    folder: Path, make: Callable[[], ForwardForward], cadence: dict[str, Any], **limits: Any
) -> tuple[int, int, int]:
    """Resume from every checkpoint a run writes; returns their number, and the run's epochs and steps."""
    torch.manual_seed(5)
    keep = ModelCheckpoint(folder, "{epoch}-{step}", save_top_k=-1, **cadence)
    expected = run(folder, make(), keep, **limits)
    checkpoints = sorted(folder.glob("*.ckpt"))
    for checkpoint in checkpoints:
        torch.manual_seed(1000)
        resumed = run(folder, make(), resume=checkpoint, **limits)
        if checkpoint.stem.endswith(f"step={expected['counters'][1]}"):  # nothing is left to do
            resumed["random"], resumed["counters"] = expected["random"], expected["counters"]
        assert differences(expected, resumed) == [], checkpoint.name
    return len(checkpoints), *expected["counters"]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("cadence", CADENCES)
@pytest.mark.parametrize("limits", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 9}], ids=["epochs", "steps"])
def test_from_every_checkpoint_schedulers_step_neither_twice_nor_too_seldom(
    tmp_path: Path, schedule: str, cadence: str, limits: dict[str, Any]
) -> None:
    make = partial(build, **SCHEDULES[schedule])
    found, epochs, steps = resume_from_each(tmp_path, make, CADENCES[cadence], **limits)
    accumulates = "accumulate_grad_batches" in SCHEDULES[schedule]
    early = "max_steps" in limits and not accumulates  # ends in the middle of epoch 1
    assert (epochs, steps) == ((2, 9) if early else (3, 9) if accumulates else (3, 15))
    assert found == {"batches": steps, "epochs": epochs, "validations": epochs - early}[cadence]


@pytest.mark.parametrize("settings", [{}, {"step": "block"}, {"backward": "summed"}], ids=["batch", "block", "summed"])
def test_a_checkpoint_between_two_steps_holds_the_gradients(tmp_path: Path, settings: dict[str, Any]) -> None:
    # Validation and its checkpoint come after 3 of 5 batches, steps after 2, 4 and 5.
    make = partial(build, accumulate_grad_batches=2, **settings)
    assert resume_from_each(tmp_path, make, CADENCES["validations"], val_check_interval=3) == (3, 3, 9)
    saved = torch.load(tmp_path / "epoch=1-step=4.ckpt", weights_only=True)
    assert len(saved["gradients"]) == 4
    assert all(gradient.any() for gradient in saved["gradients"].values())


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    make = partial(build, scheduler=partial(ExponentialLR, gamma=0.5))
    torch.manual_seed(5)
    expected = run(tmp_path, make(), max_epochs=4)
    torch.manual_seed(5)
    run(tmp_path, make(), ModelCheckpoint(tmp_path, "last"), max_epochs=2)
    torch.manual_seed(1000)
    assert differences(expected, run(tmp_path, make(), resume=tmp_path / "last.ckpt", max_epochs=4)) == []


def test_a_seed_set_after_a_resumed_run_counts(tmp_path: Path) -> None:
    """The random state of a checkpoint is used once: a later run of the same learner starts with the user's seed."""
    model = build()
    run(tmp_path, model, ModelCheckpoint(tmp_path, "last"), max_epochs=1)
    run(tmp_path, model, resume=tmp_path / "last.ckpt", max_epochs=2)
    twin = build()
    twin.load_state_dict(model.state_dict())
    left = []
    for each in (model, twin):
        torch.manual_seed(9)
        left.append(run(tmp_path, each, max_epochs=1))
    assert differences(*left) == []


if __name__ == "__main__":
    resume_all(Path(sys.argv[1]))
