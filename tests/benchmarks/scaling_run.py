"""One run of the scaling benchmark, in as many processes as its strategy starts; each writes what it measured.

python -m tests.benchmarks.scaling_run ff_ddp --batches 70 --folder FOLDER
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.profilers import PassThroughProfiler
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from lightning_ff import Backprop, ForwardForward
from lightning_ff.data import ImageData

BATCH, WIDTH, BLOCKS, WARM = 256, 1500, 4, 10
SHAPE, SMALL = (1, 30, 50), (1, 6, 6)
SGD = partial(torch.optim.SGD, lr=1e-3)
STRATEGIES: dict[str, Any] = {
    "one": "auto",
    "ff_ddp": "ff_ddp",
    "ff_pipeline": "ff_pipeline",
    "backprop": "auto",
    "ddp_backprop": "ddp",
    "ddp_summed": "ddp",
    "find_unused": "ddp_find_unused_parameters_true",
    "sleep_one": "auto",
    "sleep_pipeline": "ff_pipeline",
}


class Noise(ImageData):
    """Random images of as many batches of the whole job as asked for."""

    classes = tuple("0123456789")

    def __init__(self, batches: int, batch_size: int, shape: tuple[int, ...]) -> None:
        self.input_shape = shape
        super().__init__(batch_size=batch_size, val_size=0)
        self.images = batches * BATCH

    @override
    def read(self, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (self.images, *self.input_shape), dtype=torch.uint8, generator=g)
        return images, torch.arange(self.images) % 10


class Sleep(nn.Module):
    """Sleeps for 30 ms."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.03)
        return x


class Clock(PassThroughProfiler):
    """Seconds a batch in this process, after the first ones, and how many elements its messages had."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.begins: list[float] = []

    @override
    def start(self, action_name: str) -> None:
        """Called at the start of a batch."""
        if action_name != "run_training_batch":
            return
        if len(self.begins) == WARM:
            self.elements = 0
        self.begins.append(time.perf_counter())

    def result(self, model: nn.Module) -> dict[str, float]:
        """Result after the run."""
        began, parameters = self.begins[WARM:], sum(p.numel() for p in model.parameters())
        seconds = (began[-1] - began[0]) / (len(began) - 1)
        return {"seconds": seconds, "traffic": self.elements / len(began) / parameters}


def learner(kind: str) -> LightningModule:
    """What is trained: four equal blocks, the same as backprop with a classifier on top, or small ones that sleep."""
    if "backprop" in kind:
        layers = [layer for _ in range(BLOCKS) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
        return Backprop(nn.Sequential(nn.Flatten(), *layers, nn.Linear(WIDTH, 10)), 10, SHAPE, optimizer=SGD)
    if "sleep" in kind:
        layers = [nn.Sequential(nn.Flatten(), Sleep(), nn.LazyLinear(32), nn.ReLU()) for _ in range(BLOCKS)]
        return ForwardForward(10, SMALL, blocks=layers, optimizer=SGD)
    backward: Any = "summed" if kind == "ddp_summed" else "per_block"
    return ForwardForward(10, SHAPE, widths=[WIDTH] * BLOCKS, optimizer=SGD, backward=backward)


class Counting(Callback):
    """Counts what messages that average gradients hold."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(trainer.strategy.model, DistributedDataParallel):
            trainer.strategy.model.register_comm_hook(self.clock, hook)
        else:
            plain = dist.all_reduce

            def counted(tensor: torch.Tensor, *arguments: Any, **named: Any) -> Any:
                self.clock.elements += tensor.numel()
                return plain(tensor, *arguments, **named)

            dist.all_reduce = counted


def hook(clock, bucket):  # type: ignore[no-untyped-def]  # torch refuses annotations that are texts
    """As DDP averages a bucket, and counted."""
    clock.elements += bucket.buffer().numel()
    return allreduce_hook(dist.group.WORLD, bucket)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=STRATEGIES)
    parser.add_argument("--batches", type=int, default=70)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--traffic", action="store_true", help="count the elements of messages, which takes time")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    model = learner(given.kind)
    processes = 1 if STRATEGIES[given.kind] == "auto" else 2
    shares = processes if "dd" in given.kind or given.kind == "find_unused" else 1
    clock, data = Clock(), Noise(given.batches, BATCH // shares, SMALL if "sleep" in given.kind else SHAPE)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=processes,
        strategy=STRATEGIES[given.kind],
        logger=CSVLogger(given.folder),
        profiler=clock,
        callbacks=[Counting(clock)] if given.traffic else [],
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    (given.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(clock.result(model)))


if __name__ == "__main__":
    main()
