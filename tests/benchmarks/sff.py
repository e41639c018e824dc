"""Time of a Scalable Forward-Forward step against a backprop step on the same network.

    python -m tests.benchmarks.sff --json sff.json

Kernel 1, cut into blocks, batch 64, 64 pixels, fused AdamW, one thread, both under a Trainer with default logging. The
two take turns, a few batches each, of which the fastest counts: what else the machine does only slows them down. Ratios
are medians over the turns. The profile of a step of ours follows.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from lightning_ff import Backprop, ScalableForwardForward
from tests.benchmarks.report import arguments, publish

AIMS = {"resnet18_k10": 1.05, "resnet18_k100": 1.10, "mobilenet_v3_small_k10": 1.25, "mobilenet_v3_small_k100": 1.45}
BATCH, SIZE = 64, 64
ADAM = partial(torch.optim.AdamW, lr=1e-4, fused=True)


class Clock(Callback):
    """Seconds of every batch but the first."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        if batch_idx:
            self.seconds.append(now - self.last)
        self.last = now


def batches(classes: int, count: int) -> DataLoader[Any]:
    """Ready batches of random images."""
    g = torch.Generator().manual_seed(0)
    ready = [
        (torch.randn(BATCH, 3, SIZE, SIZE, generator=g), torch.randint(0, classes, (BATCH,), generator=g))
        for _ in range(count)
    ]
    return DataLoader(ready, batch_size=None)  # type: ignore[arg-type]


def turn(model: LightningModule, data: DataLoader[Any], folder: str) -> float:
    """Seconds of the fastest step of one short run, as a user starts it, its output thrown away."""
    clock = Clock()
    with open(os.devnull, "w") as null, redirect_stdout(null), redirect_stderr(null):
        trainer = Trainer(
            max_epochs=1, accelerator="cpu", logger=CSVLogger(folder), callbacks=[clock], enable_checkpointing=False
        )
        trainer.fit(model, data)
    return min(clock.seconds)


def compare(model: str, classes: int, folder: str, turns: int) -> dict[str, float]:
    """Seconds of both, and the median ratio of ours to backprop over the turns."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"num_classes": classes, "input_shape": (3, SIZE, SIZE), "optimizer": ADAM}
    ours, plain = ScalableForwardForward(model, **arguments), Backprop(model, **arguments)
    data = batches(classes, 5)
    for each in (ours, plain):
        turn(each, data, folder)
    pairs = []
    for i in range(turns):  # who begins alternates, since the machine may slow down or speed up
        order = (ours, plain) if i % 2 else (plain, ours)
        seconds = {each: turn(each, data, folder) for each in order}
        pairs.append((seconds[ours], seconds[plain]))
    return {
        "ratio": median(a / b for a, b in pairs),
        "ms_ours": 1e3 * median(a for a, _ in pairs),
        "ms_backprop": 1e3 * median(b for _, b in pairs),
    }


def profile(model: str, classes: int, folder: str) -> str:
    """Where the time of a step goes."""
    ours = ScalableForwardForward(model, classes, (3, SIZE, SIZE), optimizer=ADAM)
    data = batches(classes, 5)
    with torch.profiler.profile() as seen:
        turn(ours, data, folder)
    return str(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=48))


def main() -> None:
    given = arguments(__doc__ or "", threads=1)
    numbers: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in AIMS:
            model, _, classes = name.rpartition("_k")
            found = compare(model, int(classes), folder, 1 if given.quick else 9)
            numbers[name] = found["ratio"]
            numbers |= {f"{key}_{name}": found[key] for key in ("ms_ours", "ms_backprop")}
        table = profile("mobilenet_v3_small", 100, folder)
    publish(numbers, {name: f"ours / backprop (aim {aim:.2f})" for name, aim in AIMS.items()}, given.json)
    print("\nWhere five steps of mobilenet_v3_small with 100 classes go:\n" + table)


if __name__ == "__main__":
    main()
