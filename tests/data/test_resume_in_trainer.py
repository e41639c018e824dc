"""A real Trainer over our loaders: epochs, resume from a checkpoint of any batch, several processes, prediction."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from typing_extensions import override

from lightning_ff.data import Batch, Digits, ImageData

BATCHES = 5  # an epoch of 90 training images in batches of 18
Seen = list[tuple[int, list[int]]]
# Lightning's warnings about the small modules and callbacks here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    pytest.mark.filterwarnings(r"ignore:It is recommended to use `self.log\(.*sync_dist=True"),
]


class Recorder(LightningModule):
    """Records the epoch and the indices of each training batch."""

    def __init__(self, manual: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = not manual
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: Seen = []
        self.validated: list[int] = []

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert isinstance(batch, Batch)
        self.seen.append((self.current_epoch, batch.index.tolist()))
        loss: Tensor = (self.weight - batch.image.mean()).square().sum()
        if not self.automatic_optimization:
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated += batch.index.tolist()
        self.log("val", batch.image.mean())

    @override
    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return batch.index

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder: Path, *callbacks: ModelCheckpoint, **arguments: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        callbacks=list(callbacks),
        **arguments,
    )


def data(fake: type[ImageData], **arguments: Any) -> ImageData:
    return fake(batch_size=18, val_size=10, **arguments)


def test_epochs_differ_and_each_sees_every_training_image_once(tmp_path: Path, fake: type[ImageData]) -> None:
    model = Recorder()
    trainer(tmp_path, max_epochs=3).fit(model, data(fake))
    epochs = [[number for epoch, batch in model.seen if epoch == wanted for number in batch] for wanted in range(3)]
    assert [len(set(epoch)) for epoch in epochs] == [90, 90, 90]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert set(model.validated) == set(range(100)) - set(epochs[0])


SETTINGS: dict[str, tuple[bool, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "epochs": (False, {"max_epochs": 3}, {"every_n_train_steps": 1}, {}),
    "manual": (True, {"max_epochs": 3}, {"every_n_train_steps": 1}, {}),
    "steps": (True, {"max_steps": 3 * BATCHES}, {"every_n_train_steps": 1}, {}),
    "limited": (True, {"max_epochs": 3, "limit_train_batches": 3}, {"every_n_train_steps": 1}, {}),
    "limited steps": (True, {"max_steps": 9, "limit_train_batches": 3}, {"every_n_train_steps": 1}, {}),
    "no validation": (True, {"max_epochs": 3, "limit_val_batches": 0}, {"every_n_train_steps": 1}, {}),
    "empty validation": (True, {"max_epochs": 3}, {"every_n_train_steps": 1}, {"val_size": 0}),
    "frequent validation": (True, {"max_epochs": 3, "val_check_interval": 2}, {"every_n_train_steps": 1}, {}),
    "reloaded": (True, {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1}, {"every_n_train_steps": 1}, {}),
    "after epoch": (True, {"max_epochs": 3}, {"save_on_train_epoch_end": True}, {}),
    "after epoch, steps": (True, {"max_steps": 3 * BATCHES}, {"save_on_train_epoch_end": True}, {}),
    "after validation": (True, {"max_epochs": 3}, {"save_on_train_epoch_end": False}, {}),
    "after mid validation": (
        True,
        {"max_epochs": 3, "val_check_interval": 2},
        {"save_on_train_epoch_end": False},
        {},
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_resume_from_every_checkpoint_sees_exactly_the_rest(tmp_path: Path, fake: type[ImageData], name: str) -> None:
    manual, limits, cadence, arguments = SETTINGS[name]
    arguments = {"batch_size": 18, "val_size": 10, **arguments}
    keep = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **cadence)
    straight = Recorder(manual)
    trainer(tmp_path, keep, **limits).fit(straight, fake(**arguments))
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) >= 3

    for checkpoint in checkpoints:
        step = int(checkpoint.stem.split("=")[1].split("-")[0])
        resumed = Recorder(manual)
        trainer(tmp_path, **limits).fit(resumed, fake(**arguments), ckpt_path=checkpoint)
        assert resumed.seen == straight.seen[step:], checkpoint.name
        assert torch.equal(resumed.weight, straight.weight), checkpoint.name


class Stop(Exception):
    """A run is interrupted."""


class Stopped(Recorder):
    """Stops before its eighth batch is learned."""

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if len(self.seen) == BATCHES + 2:
            raise Stop
        return super().training_step(batch, batch_idx)


def test_stopping_in_the_middle_of_epoch_1_and_resuming_sees_the_rest(tmp_path: Path, fake: type[ImageData]) -> None:
    straight = Recorder(manual=True)
    trainer(tmp_path, max_epochs=3).fit(straight, data(fake))

    stopped = Stopped(manual=True)
    keep = ModelCheckpoint(tmp_path, "stopped", every_n_train_steps=1)
    with pytest.raises(Stop):
        trainer(tmp_path, keep, max_epochs=3).fit(stopped, data(fake))
    resumed = Recorder(manual=True)
    trainer(tmp_path, max_epochs=3).fit(resumed, data(fake), ckpt_path=tmp_path / "stopped.ckpt")

    assert [epoch for epoch, _ in resumed.seen] == [1] * 3 + [2] * 5
    assert stopped.seen + resumed.seen == straight.seen
    assert torch.equal(resumed.weight, straight.weight)


def ended_by_max_steps(folder: Path, module: ImageData, steps: int) -> tuple[Recorder, Path]:
    model, keep = Recorder(manual=True), ModelCheckpoint(folder, f"end{steps}", save_on_train_epoch_end=True)
    trainer(folder, keep, max_steps=steps).fit(model, module)
    return model, folder / f"end{steps}.ckpt"


@pytest.mark.parametrize("steps", [2, BATCHES, BATCHES + 2])
def test_raising_max_steps_goes_on_where_the_run_ended(tmp_path: Path, fake: type[ImageData], steps: int) -> None:
    straight, _ = ended_by_max_steps(tmp_path, data(fake), 3 * BATCHES)
    first, checkpoint = ended_by_max_steps(tmp_path, data(fake), steps)
    resumed = Recorder(manual=True)
    trainer(tmp_path, max_steps=3 * BATCHES).fit(resumed, data(fake), ckpt_path=checkpoint)
    assert first.seen + resumed.seen == straight.seen


@pytest.mark.filterwarnings("ignore:the checkpoint was made after")
@pytest.mark.parametrize("batch_size", [9, 36])
@pytest.mark.parametrize("name", [name for name, (_, limits, _, _) in SETTINGS.items() if "max_epochs" in limits])
def test_with_other_batches_the_epoch_begins_again(
    tmp_path: Path, fake: type[ImageData], name: str, batch_size: int
) -> None:
    manual, limits, cadence, arguments = SETTINGS[name]
    arguments = {"val_size": 10, **arguments}
    keep = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **cadence)
    first = Recorder(manual)
    trainer(tmp_path, keep, **limits).fit(first, fake(batch_size=18, **arguments))
    straight = Recorder(manual)
    trainer(tmp_path, **limits).fit(straight, fake(batch_size=batch_size, **arguments))
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) >= 3
    for checkpoint in checkpoints:
        step = int(checkpoint.stem.split("=")[1].split("-")[0])
        epoch = first.seen[step][0] if step < len(first.seen) else limits["max_epochs"]
        resumed = Recorder(manual)
        trainer(tmp_path, **limits).fit(resumed, fake(batch_size=batch_size, **arguments), ckpt_path=checkpoint)
        assert resumed.seen == [seen for seen in straight.seen if seen[0] >= epoch], checkpoint.name


def test_an_epoch_that_begins_again_says_so(tmp_path: Path, fake: type[ImageData]) -> None:
    _, checkpoint = ended_by_max_steps(tmp_path, data(fake), BATCHES + 2)
    said = "after 2 batches of 18 in epoch 1, and batches of all processes together now have 9: the epoch starts again"
    with pytest.warns(UserWarning, match=said):
        trainer(tmp_path, max_steps=20).fit(Recorder(True), fake(batch_size=9, val_size=10), ckpt_path=checkpoint)


def test_other_data_are_refused(tmp_path: Path, fake: type[ImageData]) -> None:
    _, checkpoint = ended_by_max_steps(tmp_path, data(fake), 2)
    with pytest.raises(ValueError, match="the checkpoint has samples=90, this loader has samples=80"):
        trainer(tmp_path, max_steps=4).fit(Recorder(True), fake(batch_size=9, val_size=20), ckpt_path=checkpoint)


def test_a_second_fit_goes_on_with_the_next_epochs(tmp_path: Path, fake: type[ImageData]) -> None:
    straight, twice = Recorder(), Recorder()
    trainer(tmp_path, max_epochs=4).fit(straight, data(fake))
    runner, module = trainer(tmp_path, max_epochs=2), data(fake)
    runner.fit(twice, module)
    runner.fit_loop.max_epochs = 4
    runner.fit(twice, module)
    assert twice.seen == straight.seen
    assert module.reads == [True]  # type: ignore[attr-defined]


def test_overfit_batches_repeats_the_same_batches_without_a_warning(tmp_path: Path, fake: type[ImageData]) -> None:
    model = Recorder()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="You requested to overfit")
        trainer(tmp_path, max_epochs=3, overfit_batches=2).fit(model, data(fake))
    epochs = [[batch for epoch, batch in model.seen if epoch == wanted] for wanted in range(3)]
    assert [len(epoch) for epoch in epochs] == [2, 2, 2]
    assert epochs[0] == epochs[1] == epochs[2]


def test_predict_covers_the_test_set_in_order(tmp_path: Path, fake: type[ImageData]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        parts: Any = trainer(tmp_path).predict(Recorder(), fake(eval_batch_size=10))
    assert [len(part) for part in parts] == [10, 10, 3]
    assert torch.cat(parts).tolist() == list(range(23))


def test_without_validation_images_lightning_runs_none(tmp_path: Path) -> None:
    model = Recorder()
    runner, module = trainer(tmp_path, max_epochs=2), Digits(val_size=0, batch_size=500)
    runner.fit(model, module)
    assert runner.validate(model, module) == []
    assert len(model.seen) == 6
    assert model.validated == []


def test_fit_never_reads_the_test_set(tmp_path: Path, fake: type[ImageData]) -> None:
    module: Any = data(fake)
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(Recorder(), module)
    runner.validate(Recorder(), module)
    assert module.reads == [True]
    runner.predict(Recorder(), module)
    assert module.reads == [True, False]

    module = data(fake)
    trainer(tmp_path).predict(Recorder(), module)
    assert module.reads == [False]


class Filing(Recorder):
    """Writes the samples of each process to a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    @override
    def on_fit_end(self) -> None:
        torch.save((self.seen, self.validated), self.folder / f"rank{self.global_rank}.pt")


def test_two_processes_share_each_epoch(tmp_path: Path, fake: type[ImageData]) -> None:
    module = fake(batch_size=9, val_size=9)  # 91 training images
    runner = trainer(tmp_path, strategy="ddp_fork", devices=2, max_epochs=2, num_sanity_val_steps=0)
    runner.fit(Filing(tmp_path), module)
    (first, first_val), (second, second_val) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))

    assert sorted([*first_val, *second_val]) == sorted(2 * sorted({*first_val, *second_val}))
    assert (len(first_val), len(second_val)) == (10, 8)
    for epoch in range(2):
        parts = [[number for e, batch in seen if e == epoch for number in batch] for seen in (first, second)]
        assert [len(part) for part in parts] == [45, 45]
        assert len({*parts[0], *parts[1]}) == 90
        assert not {*parts[0], *parts[1]} & {*first_val}
    one = Recorder()
    trainer(tmp_path, max_epochs=2).fit(one, fake(batch_size=18, val_size=9))
    together = [sorted([*a, *b]) for (_, a), (_, b) in zip(first, second, strict=True)]
    assert together[:5] == [sorted(batch) for _, batch in one.seen[:5]]
