"""Steps that are put off until their block runs again: nobody sees a difference but the clock."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint
from torch.multiprocessing import ProcessRaisedException
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data import DataLoader

from lightning_ff import (
    CosineToEnd,
    ForwardForward,
    HardLabel,
    LinearReadout,
    LocalDDPStrategy,
    Mixture,
    ScalableForwardForward,
    WrongLabel,
)
from lightning_ff.strategies.late import settings, with_settings
from tests.strategies.runs import (
    ADAMW,
    BATCH,
    CLASSES,
    SGD,
    SHAPE,
    STEPS,
    Look,
    Shares,
    difference,
    layers,
    learner,
    trained,
)

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")


class Noting(torch.optim.SGD):
    """Notes how many batches were over when it stepped."""

    trainer: Trainer

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.1)
        self.steps: list[int] = []

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        self.steps.append(Noting.trainer.global_step)
        return super().step(closure)


class Tell(Callback):
    """Tells the optimizers of the trainer, and writes what they noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Noting.trainer = trainer

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        noted = {name: inner.steps for name, inner in pl_module.facade.inner.items()}
        torch.save(noted, self.folder / f"{trainer.global_rank}.pt")


class Mine(Callback):
    """A callback of a user's own, which might look at weights."""

    def on_train_batch_end(self, *_: Any) -> None:
        pass


IN_TIME, LATE = [*range(STEPS)], [0, *range(2, STEPS), STEPS - 1]


@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual")
@pytest.mark.parametrize(
    ("arguments", "callbacks", "late", "expected"),
    [
        ({}, [], True, LATE),
        ({"readout": LinearReadout()}, [ModelCheckpoint(every_n_train_steps=STEPS)], True, LATE),
        ({}, [], False, IN_TIME),
        ({"step": "block"}, [], True, IN_TIME),
        ({}, [Mine()], True, IN_TIME),
        ({}, [LambdaCallback(on_before_optimizer_step=lambda *_: None)], True, IN_TIME),
    ],
    ids=["late", "saved", "not wanted", "step=block", "watched", "watched by a function"],
)
def test_a_block_steps_when_it_runs_again_if_nobody_looks(
    arguments: dict[str, Any], callbacks: list[Callback], late: bool, expected: list[int], tmp_path: Path
) -> None:
    strategy = LocalDDPStrategy(late_steps=late, start_method="fork", process_group_backend="gloo")
    flags: dict[str, Any] = {"callbacks": [*callbacks, Tell(tmp_path)], "default_root_dir": tmp_path}
    if any(isinstance(each, ModelCheckpoint) for each in callbacks):
        flags["enable_checkpointing"] = True
    trained(learner("class", Noting, **arguments), 2, strategy=strategy, log_every_n_steps=1000, **flags)
    for rank in (0, 1):
        noted = torch.load(tmp_path / f"{rank}.pt")
        assert len(noted) >= 3
        assert all(steps == expected for steps in noted.values()), noted


class Validated(Shares):
    """With validation data."""

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.samples, batch_size=STEPS * BATCH)


def stop(trainer: Trainer, rank: int) -> None:
    if trainer.global_step == 5 and trainer.global_rank == rank:
        trainer.should_stop = True


class Clamping(ForwardForward):
    """Keeps weights small before each batch."""

    def sweep(self, *arguments: Any, **named: Any) -> Any:
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.clamp_(-0.2, 0.2)
        return super().sweep(*arguments, **named)


class ByWeights(LRScheduler):
    """Rates that go by the size of weights."""

    def get_lr(self) -> list[float]:
        groups = self.optimizer.param_groups
        return [0.1 / (1.0 + float(group["params"][0].detach().norm())) for group in groups]


RUNS: dict[str, Callable[[], tuple[dict[str, Any], dict[str, Any]]]] = {
    "rates by step": lambda: ({"scheduler": CosineToEnd, "scheduler_interval": "step"}, {}),
    "momentum by step": lambda: (
        {
            "optimizer": SGD,
            "scheduler": partial(OneCycleLR, max_lr=0.1, total_steps=STEPS + 1),
            "scheduler_interval": "step",
        },
        {},
    ),
    "clipping": lambda: ({"gradient_clip_val": 0.05}, {}),
    "validation within an epoch": lambda: ({}, {"val_check_interval": 3}),
    "scores at every step": lambda: ({"negatives": HardLabel()}, {}),
    "a limit of steps": lambda: ({}, {"max_steps": 7, "max_epochs": -1}),
    "a limit of batches": lambda: ({"readout": LinearReadout()}, {"limit_train_batches": 6, "max_epochs": 2}),
    "logging at every step": lambda: ({}, {"log_every_n_steps": 1}),
    "early stopping": lambda: (
        {},
        {"callbacks": [EarlyStopping("val/loss", min_delta=9.0, patience=1)], "val_check_interval": 4},
    ),
    "accumulation": lambda: ({"accumulate_grad_batches": 3, "readout": LinearReadout()}, {"max_epochs": 2}),
}


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_equal_one(run: str, tmp_path: Path) -> None:
    measured = []
    for processes in (1, 2):
        arguments, flags = RUNS[run]()

        def see(trainer: Trainer, module: Any, processes: int = processes) -> None:
            known = {key: float(value) for key, value in trainer.callback_metrics.items()}
            torch.save([trainer.global_step, known], tmp_path / f"{processes}-{trainer.global_rank}.pt")

        model = learner("pair", **{"optimizer": ADAMW, **arguments})
        flags["callbacks"] = [*flags.get("callbacks", []), Look(see)]
        more = {"num_sanity_val_steps": 0, "log_every_n_steps": 1000, **flags}
        measured.append(trained(model, processes, torch.float64, data=Validated, **more))
    assert difference(*measured) <= 1e-9
    (steps, one), (also, two) = (torch.load(tmp_path / f"{processes}-0.pt") for processes in (1, 2))
    assert steps == also > 1
    for key, value in one.items():
        if key.startswith("val/") or key.startswith("train/loss"):
            assert two[key] == pytest.approx(value, abs=1e-5), key


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(Clamping, {}), (ForwardForward, {"scheduler": ByWeights, "scheduler_interval": "step"})],
)
def test_what_is_of_ones_own_sees_the_weights_that_it_sees_in_one_process(kind: Any, arguments: dict[str, Any]) -> None:
    found = []
    for processes in (1, 2):
        torch.manual_seed(0)
        model = kind(CLASSES, SHAPE, widths=[9, 8, 7], optimizer=SGD, **arguments)
        found.append(trained(model, processes, torch.float64, log_every_n_steps=1000))
    assert difference(*found) <= 1e-9


@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual")
def test_checkpoints_have_the_last_step(tmp_path: Path) -> None:
    for processes in (1, 2):
        saved = ModelCheckpoint(tmp_path / str(processes), every_n_train_steps=3, save_top_k=-1, filename="{step}")
        trained(
            learner("class", ADAMW), processes, torch.float64, callbacks=[saved], enable_checkpointing=True,
            log_every_n_steps=1000,
        )  # fmt: skip
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert len(names) == STEPS // 3
    for name in names:
        one, two = (torch.load(tmp_path / str(n) / name, weights_only=True) for n in (1, 2))
        assert difference(one["state_dict"], two["state_dict"]) <= 1e-9
        states = [list(each["optimizer_states"][0]["state"].values()) for each in (one, two)]
        assert len(states[0]) > 3
        for mine, others in zip(*states, strict=True):
            assert difference(mine, others) <= 1e-9


@pytest.mark.skipif(not hasattr(lightning.pytorch.callbacks, "WeightAveraging"), reason="Lightning 2.6 has it")
def test_averaged_weights_see_every_step() -> None:
    def made() -> Any:
        return lightning.pytorch.callbacks.WeightAveraging(use_buffers=True)

    one = trained(learner("class", ADAMW), 1, torch.float64, callbacks=[made()])
    two = trained(learner("class", ADAMW), 2, torch.float64, callbacks=[made()])
    assert difference(one, two) <= 1e-9


def test_statistics_and_weights_are_equal_in_all_processes_when_a_wish_to_stop_is_granted(tmp_path: Path) -> None:
    def wish(trainer: Trainer, *_: Any) -> None:
        stop(trainer, 1)

    wish.__module__ = "lightning.pytorch.callbacks.wish"  # one that is known not to look

    def write(trainer: Trainer, module: Any) -> None:
        torch.save([trainer.global_step, module.state_dict()], tmp_path / f"{trainer.global_rank}.pt")

    torch.manual_seed(0)
    model = ScalableForwardForward(layers(batch_norm=True), CLASSES, SHAPE, optimizer=SGD)
    trained(model, 2, callbacks=[LambdaCallback(on_train_batch_end=wish), Look(write)], log_every_n_steps=4)
    (steps, first), (also, second) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert steps == also == 8
    assert difference(first, second) == 0.0


def test_after_an_error_all_blocks_have_made_the_last_whole_step(tmp_path: Path) -> None:
    """Which comes in the middle of a sweep; where others start the processes, Lightning tells the strategy of it."""
    strategy = LocalDDPStrategy(start_method="fork", process_group_backend="gloo")

    class Failing(torch.nn.Module):
        batches = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Failing.batches += self.training
            if Failing.batches > 5:
                assert strategy._late
                strategy.on_exception(ArithmeticError("in the sixth batch"))
                part = tmp_path / f"{strategy.global_rank}.part"
                torch.save(strategy.learner.state_dict(), part)
                part.rename(part.with_suffix(".pt"))  # the first to fail has the other one ended
                raise ArithmeticError("in the sixth batch")
            return x

    def made() -> Any:
        torch.manual_seed(0)
        first, second, third = layers()
        network = torch.nn.Sequential(first, torch.nn.Sequential(Failing(), second), third)
        learner = ScalableForwardForward(network, CLASSES, SHAPE, optimizer=SGD)
        Failing.batches = 0
        return learner

    with pytest.raises(ProcessRaisedException, match="in the sixth batch"):
        trained(made(), 2, torch.float64, strategy)
    one = trained(made(), 1, torch.float64, limit_train_batches=5)
    saved = [torch.load(path) for path in tmp_path.glob("*.pt")]
    assert saved
    assert all(difference(one, each) <= 1e-9 for each in saved)


class Own(WrongLabel):
    """A sampler of a user's own."""


@pytest.mark.parametrize("negatives", [Own(), Mixture([WrongLabel(), Own()], [0.5, 0.5])])
def test_a_sampler_of_ones_own_might_look(negatives: Any, tmp_path: Path) -> None:
    trained(learner("pair", Noting, negatives=negatives), 2, callbacks=[Tell(tmp_path)], log_every_n_steps=1000)
    assert all(steps == IN_TIME for steps in torch.load(tmp_path / "0.pt").values())


def test_settings_of_earlier_and_what_changed_since() -> None:
    optimizer = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.5, momentum=0.9)
    then = settings(optimizer)
    assert then is not None
    group = optimizer.param_groups[0]
    group["lr"] = 0.1
    with with_settings(optimizer, then):
        assert (group["lr"], group["momentum"]) == (0.5, 0.9)
        group["momentum"] = 0.7  # as an optimizer that keeps a count of its own there
    assert (group["lr"], group["momentum"]) == (0.1, 0.7)
    group["lr"] = torch.tensor(0.1)
    assert settings(optimizer) is None
