"""A subclass that overrides Lightning's hooks without `super()` keeps all functions of the learner."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from lightning_ff import BlockSummary, ForwardForward, IntervalReadout, NonFiniteLoss, WrongLabel
from lightning_ff.data import Digits
from lightning_ff.learner.attached import Attached

HOOKS = (
    "setup",
    "configure_callbacks",
    "on_fit_start",
    "on_fit_end",
    "on_train_start",
    "on_train_end",
    "on_train_epoch_start",
    "on_train_epoch_end",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_optimizer_step",
    "on_validation_start",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_test_epoch_end",
    "on_save_checkpoint",
    "on_load_checkpoint",
    "teardown",
)


def nothing(self: Any, *arguments: Any, **named: Any) -> list[Callback]:
    return []


Deaf: Any = type("Deaf", (ForwardForward,), dict.fromkeys(HOOKS, nothing))


def learner(kind: Any, **arguments: Any) -> ForwardForward:
    torch.manual_seed(0)
    made: ForwardForward = kind(10, (1, 8, 8), widths=[12, 10], **arguments)
    return made


def fit(model: LightningModule, folder: Path, resume: Any = None, **flags: Any) -> Trainer:
    trainer = Trainer(
        **{"max_epochs": 2, "limit_train_batches": 7, "limit_val_batches": 3, **flags},
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, Digits(batch_size=20), ckpt_path=resume)
    return trainer


def state(model: LightningModule) -> torch.Tensor:
    return torch.cat([value.detach().double().flatten() for value in model.state_dict().values()])


ARGUMENTS: dict[str, dict[str, Any]] = {
    "clipping": {"gradient_clip_val": 0.01},
    "a scheduler": {"scheduler": partial(StepLR, step_size=1, gamma=0.5), "scheduler_interval": "step"},
    "a plateau": {"scheduler": partial(ReduceLROnPlateau, patience=0, threshold=10.0, factor=0.1)},
    "a fitted readout": {"readout": IntervalReadout()},
    "labels of the data": {"negatives": WrongLabel(seed=3)},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_training_is_the_same(name: str, tmp_path: Path) -> None:
    own, deaf = learner(ForwardForward, **ARGUMENTS[name]), learner(Deaf, **ARGUMENTS[name])
    fit(own, tmp_path / "own", enable_checkpointing=False)
    fit(deaf, tmp_path / "deaf", enable_checkpointing=False)
    plain = learner(ForwardForward)
    fit(plain, tmp_path / "plain", enable_checkpointing=False)
    assert torch.equal(state(own), state(deaf))
    rates = [[group["lr"] for group in model.local_optimizers.param_groups] for model in (own, deaf)]
    assert rates[0] == rates[1]
    if own.state_dict().keys() == plain.state_dict().keys():
        assert not torch.equal(state(own), state(plain))  # the argument does something


@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_checkpoints_hold_the_same_and_resume_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    ends = []
    for name, kind in {"own": ForwardForward, "deaf": Deaf}.items():
        arguments: dict[str, Any] = {"accumulate_grad_batches": 3, "dropout": 0.5}
        unbroken = learner(kind, **arguments)
        save = ModelCheckpoint(tmp_path / name, every_n_train_steps=1, save_top_k=-1, filename="{step}")
        fit(unbroken, tmp_path, callbacks=[save])
        file = tmp_path / name / "step=2.ckpt"
        saved = torch.load(file, weights_only=True)
        resumed = learner(kind, **arguments)
        fit(resumed, tmp_path, resume=file)
        assert torch.equal(state(resumed), state(unbroken))
        ends.append((state(unbroken), saved["rng"]["cpu"], saved.keys(), saved["hyper_parameters"].keys()))
    for one, two in zip(*ends, strict=True):
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    class Breaks(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(float("nan"))

    with pytest.raises(NonFiniteLoss, match="the weights of block00 are no longer finite"):
        fit(learner(Deaf), tmp_path, callbacks=[Breaks()], limit_val_batches=0)


def test_set_up_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Trainer\(gradient_clip_val=1.0\) does not act on several optimizers"):
        fit(learner(Deaf), tmp_path, gradient_clip_val=1.0)
    with pytest.raises(ValueError, match=r"Trainer\(accumulate_grad_batches=2\) does not act here"):
        fit(learner(Deaf), tmp_path, accumulate_grad_batches=2)


def test_a_trainer_gets_one_callback_and_the_table_of_blocks(tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", max_epochs=1, limit_train_batches=1, limit_val_batches=0, logger=False,
                      enable_checkpointing=False, enable_progress_bar=False)  # fmt: skip
    for _ in range(2):
        model = learner(Deaf)
        trainer.fit_loop.epoch_progress.reset()
        trainer.fit(model, Digits(batch_size=20))
        attached = [each for each in trainer.callbacks if isinstance(each, Attached)]  # type: ignore[attr-defined]
        assert [each.learner for each in attached] == [model]
        summaries = [each for each in trainer.callbacks if isinstance(each, ModelSummary)]  # type: ignore[attr-defined]
        assert [type(each) for each in summaries] == [BlockSummary]


def test_another_module_under_the_same_trainer_is_left_alone(tmp_path: Path) -> None:
    trainer = fit(learner(ForwardForward, gradient_clip_val=0.1), tmp_path, enable_checkpointing=False)
    trainer.fit_loop.max_epochs = 3
    trainer.validate(BoringModel(), verbose=False)


def test_a_hook_sees_gradients_before_and_after_it_clips(tmp_path: Path) -> None:
    norms: list[tuple[float, float]] = []

    class Watched(ForwardForward):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            def norm() -> float:
                return float(
                    torch.cat([p.grad.flatten() for p in self.blocks[0].parameters() if p.grad is not None]).norm()
                )

            before = norm()
            super().on_before_optimizer_step(optimizer)
            norms.append((before, norm()))

    fit(learner(Watched, gradient_clip_val=1e-3), tmp_path, enable_checkpointing=False)
    assert len(norms) == 2 * 7
    assert all(before > 0.01 and after == pytest.approx(1e-3, rel=1e-2) for before, after in norms)


def test_a_plateau_may_be_of_a_metric_that_the_hook_logs(tmp_path: Path) -> None:
    class Logs(ForwardForward):
        def on_validation_epoch_end(self) -> None:
            self.log("val/mine", 1.0)
            super().on_validation_epoch_end()

    plateau = partial(ReduceLROnPlateau, patience=0, factor=0.5)
    for kind in (Logs, type("Deaf", (Logs,), {"on_validation_epoch_end": lambda self: self.log("val/mine", 1.0)})):
        model = learner(kind, scheduler=plateau, scheduler_monitor="val/mine")
        fit(model, tmp_path, enable_checkpointing=False, max_epochs=3)
        assert model.local_optimizers.param_groups[0]["lr"] == pytest.approx(0.001 / 4)


class Pooled(WrongLabel):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pool", torch.zeros(3))


def test_an_assigned_sampler_is_no_submodule(tmp_path: Path) -> None:
    model = learner(ForwardForward)
    before = model.state_dict()
    model.negatives = Pooled()
    assert model.state_dict().keys() == before.keys()
    model.negatives = Pooled()
    model.load_state_dict(before)
    assert isinstance(model.sampling.own, Pooled)
    assert "negatives" not in dict(model.named_children())
    fit(model, tmp_path, enable_checkpointing=False)
    assert model.sampling.installed is model.negatives is model.sampling.own


def test_a_sampler_that_a_hook_sets_is_installed(tmp_path: Path) -> None:
    made = Pooled()

    class Sets(ForwardForward):
        def on_fit_start(self) -> None:
            self.negatives = made

    model = learner(Sets)
    fit(model, tmp_path, enable_checkpointing=False)
    assert model.sampling.installed is made
