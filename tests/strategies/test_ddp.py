"""`ff_ddp` on two gloo processes against one process on the same global batches."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.tuner import Tuner
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import DataLoader, TensorDataset

from lightning_ff import (
    Backprop,
    CosineToEnd,
    GreedySchedule,
    HardLabel,
    LinearReadout,
    LocalDDPStrategy,
    ScalableForwardForward,
)
from tests.strategies.runs import (
    ADAMW,
    BATCH,
    CLASSES,
    SGD,
    SHAPE,
    STEPS,
    USUAL,
    Look,
    Shares,
    Validated,
    difference,
    layers,
    learner,
    trained,
)

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")


@pytest.mark.parametrize("mode", ["pair", "class"])
@pytest.mark.parametrize(
    ("optimizer", "dtype", "bound"),
    [(SGD, torch.float64, 1e-9), (ADAMW, torch.float64, 1e-9), (SGD, torch.float32, 1e-5)],
)
def test_two_processes_equal_one(mode: str, optimizer: Any, dtype: torch.dtype, bound: float) -> None:
    start = {name: value.to(dtype) for name, value in learner(mode, optimizer).state_dict().items()}
    one = trained(learner(mode, optimizer), 1, dtype)
    two = trained(learner(mode, optimizer), 2, dtype)
    assert difference(one, two) <= bound
    learned = [name for name in one if name.endswith("weight")]
    assert len(learned) >= 3
    assert all(float((one[name] - start[name]).abs().max()) > 1e-3 for name in learned)


@pytest.mark.parametrize(
    "arguments",
    [
        {"step": "block"},
        {"backward": "summed"},
        {"accumulate_grad_batches": 3},
        {"segments": "loss_of_sum"},
        {"gradient_clip_val": 0.05},
        {"readout": LinearReadout()},
        {"step": "block", "accumulate_grad_batches": 2, "readout": LinearReadout()},
        {"segments": "sum_of_losses", "accumulate_grad_batches": 2, "readout": LinearReadout()},
        {"backward": "summed", "accumulate_grad_batches": 2, "readout": LinearReadout()},
    ],
    ids=str,
)
def test_every_way_to_step_equals_one_process(arguments: dict[str, Any]) -> None:
    one = trained(learner("pair", ADAMW, **arguments), 1, torch.float64)
    two = trained(learner("pair", ADAMW, **arguments), 2, torch.float64)
    assert difference(one, two) <= 1e-9


RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rates by step": ({"scheduler": CosineToEnd, "scheduler_interval": "step"}, {}),
    "validation within an epoch": ({}, {"val_check_interval": 3, "data": Validated}),
    "scores at every step": ({"negatives": HardLabel(fraction=1.0, start_epoch=0)}, {}),
    "a limit of steps": ({}, {"max_steps": 7, "max_epochs": -1}),
    "a limit of batches": ({"readout": LinearReadout()}, {"limit_train_batches": 6, "max_epochs": 2}),
    "accumulation": ({"accumulate_grad_batches": 3, "readout": LinearReadout()}, {"max_epochs": 2}),
}


@pytest.mark.parametrize("run", RUNS)
def test_every_run_equals_one_process(run: str) -> None:
    arguments, flags = RUNS[run]
    one, two = (trained(learner("pair", ADAMW, **arguments), n, torch.float64, **flags) for n in (1, 2))
    assert difference(one, two) <= 1e-9


@pytest.mark.skipif(not hasattr(lightning.pytorch.callbacks, "WeightAveraging"), reason="Lightning 2.6 has it")
def test_averaged_weights_see_every_step() -> None:
    made = partial(lightning.pytorch.callbacks.WeightAveraging, use_buffers=True)
    one, two = (trained(learner("class", ADAMW), n, torch.float64, callbacks=[made()]) for n in (1, 2))
    assert difference(one, two) <= 1e-9


def test_the_backprop_control_equals_one_process() -> None:
    def made() -> LightningModule:
        torch.manual_seed(0)
        return Backprop(layers(), CLASSES, SHAPE, optimizer=ADAMW)

    assert difference(trained(made(), 1, torch.float64), trained(made(), 2, torch.float64)) <= 1e-9


def losses(strategy: str) -> int:
    """Number of losses that the learning-rate finder computes."""
    trainer = Trainer(
        accelerator="cpu", devices=1, strategy=strategy, max_epochs=9, logger=False, enable_progress_bar=False
    )
    found = Tuner(trainer).lr_find(learner("pair"), Shares(), min_lr=1e-8, max_lr=1e6, num_training=100)
    assert found is not None
    return len(found.results["loss"])


def test_the_finder_of_rates_stops_where_the_loss_diverges() -> None:
    with ProcessPoolExecutor(1, get_context("fork")) as elsewhere:  # the process group outlives the run
        alone, with_ours = elsewhere.map(losses, ["auto", "ff_ddp"])
    assert alone == with_ours < 99


# Traffic


def messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: LightningModule, **arguments: Any) -> list[int]:
    """Sizes of the tensors that one process has reduced in training."""
    sizes: list[int] = []
    reduce = dist.all_reduce

    def counting(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if tensor.is_floating_point() or kwargs.get("async_op"):
            sizes.append(tensor.numel())
        return reduce(tensor, *args, **kwargs)

    def write(trainer: Trainer, module: Any) -> None:
        if trainer.is_global_zero:
            (tmp_path / "sizes.json").write_text(json.dumps(sizes))

    with monkeypatch.context() as patch:
        patch.setattr(dist, "all_reduce", counting)
        trained(model, 2, callbacks=[Look(write)], log_every_n_steps=1000, **arguments)
    return list(json.loads((tmp_path / "sizes.json").read_text()))[:-1]  # without losses and accuracy of the epoch


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_each_gradient_travels_once_in_one_message_per_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = learner("pair")
    sizes = messages(tmp_path, monkeypatch, model)
    buffers = [b.numel() for block in model.blocks for b in block.buffers() if b.is_floating_point()]
    of_step = [*(parameters(block) for block in model.blocks), *([sum(buffers)] if buffers else [])]
    assert sizes == of_step * STEPS
    assert sum(of_step[:3]) == parameters(model)


def test_a_learned_readout_is_one_more_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = learner("class", readout=LinearReadout())
    parts = [*model.blocks, model.network.readout]
    sizes = messages(tmp_path, monkeypatch, model)
    assert sizes == [parameters(part) for part in parts] * STEPS


def test_running_statistics_of_a_block_follow_its_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model: Any = ScalableForwardForward(layers(batch_norm=True), CLASSES, SHAPE, optimizer=SGD)
    sizes = messages(tmp_path, monkeypatch, model)
    first, *others = [parameters(block) for block in model.blocks]
    assert sizes == [first, 2 * 4, *others] * STEPS  # mean and variance of four channels


def record(sizes, bucket):  # type: ignore[no-untyped-def]  # torch refuses annotations that are strings
    """Average a bucket as DDP does, and record its size."""
    sizes.append(bucket.buffer().numel())
    return allreduce_hook(dist.group.WORLD, bucket)


def test_finding_unused_parameters_sends_all_of_them_for_every_block(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Count(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.strategy.model.register_comm_hook(sizes, record)  # type: ignore[operator, union-attr]

        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            (tmp_path / f"{trainer.global_rank}").write_text(str(sum(sizes)))

    strategy = DDPStrategy(find_unused_parameters=True, start_method="fork", process_group_backend="gloo")
    model: Any = learner("pair")
    two = trained(model, 2, torch.float64, strategy, callbacks=[Count()])
    assert difference(trained(learner("pair"), 1, torch.float64), two) <= 1e-9
    sent = int((tmp_path / "0").read_text()) / STEPS / parameters(model)
    print(f"sent per step over parameters: ddp_find_unused_parameters_true {sent}, ff_ddp 1.0")
    assert sent == len(model.blocks)


def test_nothing_travels_between_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = ScalableForwardForward(layers(), CLASSES, SHAPE, optimizer=SGD, accumulate_grad_batches=4)
    sizes = messages(tmp_path, monkeypatch, model)
    assert sizes == [parameters(block) for block in model.blocks] * (STEPS // 4)


def test_lightnings_own_ways_are_refused_or_send_more(tmp_path: Path) -> None:
    with pytest.raises(ProcessRaisedException, match="strategy='ff_ddp', which reduces each block's"):
        trained(learner("pair"), 2, strategy=DDPStrategy(start_method="fork", process_group_backend="gloo"))


# What is equal in all processes


def test_a_greedy_schedule_and_what_it_keeps() -> None:
    for cache in (True, False):
        flags: dict[str, Any] = {"callbacks": [GreedySchedule(2, cache=cache)], "max_epochs": -1}
        one = trained(learner("class", ADAMW), 1, torch.float64, **flags)
        two = trained(learner("class", ADAMW), 2, torch.float64, **flags)
        assert difference(one, two) <= 1e-9


def test_running_statistics_are_means_over_processes(tmp_path: Path) -> None:
    def write(trainer: Trainer, module: Any) -> None:
        torch.save(module.state_dict(), tmp_path / f"{trainer.global_rank}.pt")

    torch.manual_seed(0)
    model = ScalableForwardForward(layers(batch_norm=True), CLASSES, SHAPE, optimizer=SGD)
    trained(model, 2, callbacks=[Look(write)])
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert difference(first, second) == 0.0
    mean = first["network.blocks.0.layers.0.1.running_mean"]
    assert float(mean.abs().max()) > 1e-3


def test_gradients_in_half_the_bytes_are_close() -> None:
    strategy = LocalDDPStrategy("bf16", start_method="fork", process_group_backend="gloo")
    exact, short = trained(learner("class"), 2), trained(learner("class"), 2, strategy=strategy)
    assert 1e-6 < difference(exact, short) < 0.05


def test_processes_with_other_numbers_of_batches_are_refused() -> None:
    class Fewer(torch.utils.data.Sampler[int]):
        def __iter__(self) -> Any:
            return iter(range(len(self)))

        def __len__(self) -> int:
            return BATCH * (2 + dist.get_rank()) if dist.is_initialized() else BATCH

    samples = TensorDataset(torch.rand(99, *SHAPE), torch.arange(99) % CLASSES, torch.arange(99))
    trainer = Trainer(
        devices=2,
        strategy=LocalDDPStrategy(start_method="fork", process_group_backend="gloo"),
        use_distributed_sampler=False,
        **{**USUAL, "enable_progress_bar": False},
    )
    with pytest.raises(ProcessRaisedException, match="processes have from 2 to 3 training batches"):
        trainer.fit(learner("pair"), DataLoader(samples, BATCH, sampler=Fewer()))


# What is refused, and names


def test_another_module_is_refused() -> None:
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=LocalDDPStrategy(start_method="fork"), logger=False, max_epochs=1
    )
    with pytest.raises(ProcessRaisedException, match="BoringModel is no LocalLearner: use strategy='ddp'"):
        trainer.fit(BoringModel())


def test_compression_is_checked() -> None:
    with pytest.raises(ValueError, match="compression='fp8': choose 'bf16', or None"):
        LocalDDPStrategy("fp8")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "method"),
    [("ff_ddp", "popen"), ("ff_ddp_spawn", "spawn"), ("ff_ddp_fork", "fork"), ("ff_ddp_notebook", "fork")],
)
def test_names(name: str, method: str) -> None:
    strategy = StrategyRegistry.get(name)
    assert isinstance(strategy, LocalDDPStrategy)
    assert strategy._start_method == method


class Large(Shares):
    """Batches of more images than the training accuracy is computed on."""

    def train_dataloader(self) -> DataLoader[Any]:
        loader = super().train_dataloader()
        assert loader.batch_size is not None
        return DataLoader(self.samples, 80 * loader.batch_size // BATCH, sampler=loader.sampler)


class Accuracies(Callback):
    """Keeps the training accuracy of every batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        self.found.append(float(trainer.callback_metrics["train/acc"]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(self.found, self.folder / f"{trainer.world_size}-{trainer.global_rank}.pt")


def test_the_accuracy_in_training_is_that_of_one_process(tmp_path: Path) -> None:
    for processes in (1, 2):
        callbacks = [Accuracies(tmp_path)]
        trained(learner("pair"), processes, data=Large, callbacks=callbacks, log_every_n_steps=1, max_epochs=4)
    one, *two = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    assert len(set(one)) >= 3
    for found in two:
        assert found == pytest.approx(one, abs=1e-6)
