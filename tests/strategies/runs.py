"""Learners and data for runs of two gloo processes against one process, on the same global batches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lightning_ff import ForwardForward, LocalDDPStrategy, LocalPipelineStrategy, ScalableForwardForward

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "digits.yaml"
STEPS, BATCH, CLASSES, SHAPE = 20, 12, 4, (1, 6, 6)
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
ADAMW = partial(torch.optim.AdamW, lr=0.01)
Ddp = partial(LocalDDPStrategy, start_method="fork", process_group_backend="gloo")
Pipeline = partial(LocalPipelineStrategy, start_method="fork", process_group_backend="gloo")
USUAL: dict[str, Any] = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "accelerator": "cpu"}


class Shares(LightningDataModule):
    """Global batches in order; each of N processes gets every N-th sample."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        x = torch.rand(STEPS * BATCH, *SHAPE, generator=g, dtype=torch.float64).to(dtype)
        y = torch.randint(CLASSES, (len(x),), generator=g)
        self.samples = TensorDataset(x, y, torch.arange(len(x)))

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        share = {"num_replicas": 1, "rank": 0}
        if self.trainer.world_size > 1:
            share = self.trainer.strategy.distributed_sampler_kwargs
        sampler = DistributedSampler(self.samples, **share, shuffle=False)
        return DataLoader(self.samples, BATCH // share["num_replicas"], sampler=sampler)


class Validated(Shares):
    """With validation data that no sampler shares out yet."""

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.samples, batch_size=50)


def layers(batch_norm: bool = False) -> nn.Sequential:
    """A small network of three parts."""
    norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm, nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(24, CLASSES)),
    )


def learner(mode: str, optimizer: Any = SGD, **arguments: Any) -> LightningModule:
    """A learner in pair or class mode, initialised from the same seed."""
    seed_everything(0, verbose=False)
    if mode == "pair":
        return ForwardForward(CLASSES, SHAPE, widths=[9, 8, 7], optimizer=optimizer, **arguments)
    return ScalableForwardForward(layers(), CLASSES, SHAPE, optimizer=optimizer, **arguments)


def trained(
    model: LightningModule,
    processes: int,
    dtype: torch.dtype = torch.float32,
    strategy: Any = None,
    data: type[Shares] = Shares,
    **flags: Any,
) -> dict[str, Tensor]:
    """Weights after one epoch on N processes."""
    torch.set_num_threads(1)
    precision: Any = "64-true" if dtype == torch.float64 else "32-true"
    ours = Ddp() if strategy is None else strategy
    trainer = Trainer(
        **{**USUAL, "precision": precision, **flags},
        devices=processes,
        strategy=ours if processes > 1 else "auto",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model.to(dtype), data(dtype))
    return {name: value.clone() for name, value in model.state_dict().items()}


def difference(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Largest difference of any weight or buffer."""
    assert one.keys() == two.keys()
    filled = {name: value for name, value in one.items() if value.numel()}
    return max(float((value.double() - two[name].double()).abs().max()) for name, value in filled.items())


def last_weights(version: int) -> dict[str, Tensor]:
    """Weights in the last checkpoint of a run of the command line."""
    file = Path(f"logs/digits/version_{version}/checkpoints/last.ckpt")
    return dict(torch.load(file, weights_only=False)["state_dict"])


def one_thread() -> dict[str, str]:
    """Environment of a process that finds these tests."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def printed(*arguments: str, folder: Path = Path()) -> str:
    """What Python prints, given these arguments; it must succeed."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=one_thread(), cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def accuracy(output: str) -> float:
    """The test accuracy that the command line prints."""
    return float(output.split("test accuracy")[1].split()[0])


class Look(Callback):
    """Calls a function at the end of training, in every process."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.function(trainer, pl_module)


class Pid(Callback):
    """Each process writes its id into a file."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(f"pid{trainer.global_rank}").write_text(str(os.getpid()))


class Signal(Callback):
    """One process gets a SIGTERM after its fourth batch; all write the step at which they end."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == 4 and trainer.global_rank == self.rank:
            signal.raise_signal(signal.SIGTERM)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        Path(f"ended{trainer.global_rank}").write_text(f"{type(exception).__name__} {trainer.global_step}")
