"""Cost of monitors of representations, and time saved by kept outputs under a greedy schedule.

    python -m tests.benchmarks.monitors --json monitors.json

Monitors: ten epochs with validation of a 784-784x3 network on 55 000 images of 28 x 28, batch 512, with
SparsityMonitor and EnsembleMonitor at default intervals, files and pictures too, and without. Greedy: 784 units in 3
and 8 blocks, batch 512, ten epochs a block; both runs stop at the block that learns. Ratios are medians of runs that
take turns; `computed` ones are of processor time, which other work on the machine lengthens less.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from typing_extensions import override

from lightning_ff import EnsembleMonitor, FixedPool, ForwardForward, GreedySchedule, NormGoodness, SparsityMonitor
from lightning_ff.data import ImageData
from tests.benchmarks.report import arguments, publish

AIMS = {
    "epoch_with_monitors_over_without": 1.05,
    "greedy_cached_over_uncached_3": 0.75,
    "greedy_cached_over_uncached_8": 0.50,
}


class Noise(ImageData):
    """Random images."""

    classes = tuple("0123456789")
    input_shape = (1, 28, 28)

    def __init__(self, images: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.images = images

    @override
    def read(self, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (self.images, 1, 28, 28), dtype=torch.uint8, generator=g), (
            torch.arange(self.images) % 10
        )


class Clock(Callback):
    """Seconds from the first batch to the end of training, and how many of them this process computed."""

    seconds = computed = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.seconds, self.computed = time.perf_counter(), time.process_time()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.seconds, self.computed = time.perf_counter() - self.seconds, time.process_time() - self.computed


def run(blocks: int, images: int, val_size: int, epochs: int, callbacks: list[Callback]) -> Clock:
    """Seconds of one run, its output thrown away."""
    torch.manual_seed(0)
    model = ForwardForward(
        10,
        (1, 28, 28),
        widths=[784] * blocks,
        goodness=NormGoodness(),
        normalization="l2",
        negatives=FixedPool(),
        optimizer=partial(torch.optim.Adam, lr=1e-3),
    )
    clock = Clock()
    with quiet() as folder:
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=CSVLogger(folder),
            callbacks=[clock, *callbacks],
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(model, Noise(images, batch_size=512, val_size=val_size))
    return clock


@contextmanager
def quiet() -> Iterator[str]:
    """A folder for a run, and nothing printed."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as null,
        redirect_stdout(null),
        redirect_stderr(null),
    ):
        yield folder


def main() -> None:
    given = arguments(__doc__ or "")
    turns, images, epochs = (1, 5500, 10) if given.quick else (3, 60000, 10)
    pairs: dict[str, list[tuple[Clock, Clock]]] = {name: [] for name in AIMS}
    for _ in range(turns):
        monitors: list[Callback] = [SparsityMonitor(), EnsembleMonitor()]
        val = images // 12
        pairs["epoch_with_monitors_over_without"].append(
            (run(3, images, val, epochs, monitors), run(3, images, val, epochs, []))
        )
    for _ in range(turns):
        for blocks in (3, 8):
            greedy = [GreedySchedule(2 if given.quick else 10, cache=cache) for cache in (True, False)]
            pairs[f"greedy_cached_over_uncached_{blocks}"].append(
                (run(blocks, 8192, 0, -1, [greedy[0]]), run(blocks, 8192, 0, -1, [greedy[1]]))
            )
    numbers: dict[str, float] = {}
    for name, found in pairs.items():
        numbers[name] = median(a.seconds / b.seconds for a, b in found)
        numbers[f"computed_{name}"] = median(a.computed / b.computed for a, b in found)
        numbers[f"seconds_{name}"] = median(a.seconds for a, _ in found)
    publish(numbers, {name: f"aim {aim:.2f}" for name, aim in AIMS.items()}, given.json)


if __name__ == "__main__":
    main()
