"""Time and memory of a training step against a plain torch loop and the bare matrix products.

    python -m tests.benchmarks.step --json step.json

784-1000x3 and 784-2000x4 at batch 100, pair mode, wrong labels drawn inside the timed step, fused Adam, default
logging. All ratios are medians of interleaved chunks of one run. With LIGHTNING_FF_DATA the epoch runs on the real
MNIST, else on random images of its size.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_ff import ForwardForward, PixelOverlay, SymBa
from lightning_ff.data import MNIST, Batch, ImageData
from tests.benchmarks.memory_meter import gradients_alive, saved_for_backward
from tests.benchmarks.report import arguments, publish

BATCH, CLASSES = 100, 10
NETS = {"": [1000] * 3, "_2000": [2000] * 4}


def learner(widths: list[int], **kwargs: Any) -> ForwardForward:
    """The network under test."""
    torch.manual_seed(0)
    adam = partial(torch.optim.Adam, lr=1e-4, fused=True)
    labels = PixelOverlay(on_value=1.0)
    return ForwardForward(CLASSES, (1, 28, 28), widths=widths, loss=SymBa(), labels=labels, optimizer=adam, **kwargs)


class Plain:
    """The same step as a loop in plain torch."""

    def __init__(self, widths: list[int]) -> None:
        torch.manual_seed(0)
        self.layers = [nn.Linear(a, b) for a, b in zip([784, *widths], widths, strict=False)]
        self.optimizers = [torch.optim.Adam(layer.parameters(), lr=1e-4, fused=True) for layer in self.layers]

    def __call__(self, image: Tensor, label: Tensor) -> None:
        flat = image.flatten(1)
        wrong = (label + torch.randint(1, CLASSES, label.shape)) % CLASSES
        x = torch.cat([torch.cat((F.one_hot(y, CLASSES).float(), flat[:, CLASSES:]), 1) for y in (label, wrong)])
        for layer in self.layers:
            x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)
            h = torch.relu(layer(x))
            goodness = h.square().mean(1)
            loss = F.softplus(4.0 * (goodness[BATCH:] - goodness[:BATCH])).mean()
            loss.backward()
            x = h.detach()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()


class Products:
    """Forward and weight gradient of every layer over positives and negatives: two products a layer."""

    def __init__(self, widths: list[int]) -> None:
        self.terms = [
            (torch.randn(2 * BATCH, a), torch.randn(b, a), torch.randn(2 * BATCH, b))
            for a, b in zip([784, *widths], widths, strict=False)
        ]

    def __call__(self) -> None:
        for x, weight, gradient in self.terms:
            x @ weight.T
            gradient.T @ x


class Interleave(Callback):
    """Stops the clock every few batches of the Trainer and runs the other loops for as many steps."""

    def __init__(self, others: dict[str, Callable[[Batch], Any]], chunk: int, warmup: int) -> None:
        self.others, self.chunk, self.warmup = others, chunk, warmup
        self.times: dict[str, list[float]] = {name: [] for name in ("lightning", *others)}
        self.since = 0.0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if (batch_idx + 1) % self.chunk:
            return
        spent = {"lightning": time.perf_counter() - self.since}
        for name, other in self.others.items():
            start = time.perf_counter()
            for _ in range(self.chunk):
                other(batch)
            spent[name] = time.perf_counter() - start
        if batch_idx >= self.warmup:
            for name, seconds in spent.items():
                self.times[name].append(seconds / self.chunk)
        self.since = time.perf_counter()


def batches(count: int) -> list[Batch]:
    """Ready batches of random images."""
    torch.manual_seed(1)
    return [
        Batch(torch.rand(BATCH, 1, 28, 28), torch.randint(0, CLASSES, (BATCH,)), torch.arange(BATCH) + i * BATCH)
        for i in range(count)
    ]


@contextmanager
def trainer(folder: str, **flags: Any) -> Iterator[Trainer]:
    """A Trainer as a user starts it, its output thrown away."""
    with open(os.devnull, "w") as null, redirect_stdout(null), redirect_stderr(null):
        yield Trainer(accelerator="cpu", logger=CSVLogger(folder), num_sanity_val_steps=0, limit_val_batches=0, **flags)


def steps(widths: list[int], folder: str, chunks: int) -> dict[str, float]:
    """Median seconds of a step: under the Trainer, in plain torch, and of the products alone."""
    plain, products = Plain(widths), Products(widths)
    clock = Interleave({"plain": lambda b: plain(b.image, b.label), "matmul": lambda _: products()}, 5, warmup=10)
    with trainer(folder, max_epochs=1, callbacks=[clock]) as run:
        run.fit(learner(widths), DataLoader(batches(5 * chunks + 10), batch_size=None))
    seconds = {name: median(values) for name, values in clock.times.items()}
    seconds["lightning_over_plain"] = _ratio(clock.times, "lightning", "plain")
    seconds["step_over_matmul"] = _ratio(clock.times, "lightning", "matmul")
    return seconds


def _ratio(times: dict[str, list[float]], above: str, below: str) -> float:
    return median(a / b for a, b in zip(times[above], times[below], strict=True))


class Synthetic(ImageData):
    """Random images of MNIST's size."""

    classes = tuple("0123456789")
    input_shape = (1, 28, 28)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        torch.manual_seed(2)
        count = 60_000 if train else 10_000
        return torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8), torch.randint(0, CLASSES, (count,))


class EpochClock(Callback):
    """Seconds from the end of the first epoch to the end of the second."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        now = time.perf_counter()
        self.seconds = now - getattr(self, "last", now)
        self.last = now


def epochs(widths: list[int], folder: str, count: int, rounds: int) -> float:
    """An epoch of `count` batches from the data module over the same steps on ready batches, interleaved."""
    root = os.environ.get("LIGHTNING_FF_DATA")
    data = MNIST(root, batch_size=BATCH) if root else Synthetic(batch_size=BATCH)
    ready = DataLoader(batches(count), batch_size=None)
    ratios = []
    for _ in range(rounds):
        seconds = []
        for source in ({"datamodule": data}, {"train_dataloaders": ready}):
            clock = EpochClock()
            with trainer(folder, max_epochs=2, limit_train_batches=count, callbacks=[clock]) as run:
                run.fit(learner(widths), **source)  # type: ignore[arg-type]
            seconds.append(clock.seconds)
        ratios.append(seconds[0] / seconds[1])
    return median(ratios)


def memory(folder: str) -> dict[str, float]:
    """Peak saved for backward, and gradients alive at the peak, of 8 equal blocks, in MiB."""
    numbers = {}
    for name, kwargs in {"batch": {}, "block": {"step": "block"}, "summed": {"backward": "summed"}}.items():
        model = learner([784] * 8, **kwargs)
        with saved_for_backward(model) as saved, gradients_alive(model) as alive, trainer(folder, max_epochs=1) as run:
            run.fit(model, DataLoader(batches(3), batch_size=None))
        numbers[f"saved_mib_{name}"] = saved.peak / 2**20
        numbers[f"gradients_mib_{name}"] = alive.peak / 2**20
    numbers["memory_local_over_summed"] = numbers["saved_mib_batch"] / numbers["saved_mib_summed"]
    return numbers


def profile(widths: list[int], folder: str) -> str:
    """Where the time of a step goes."""
    model = learner(widths)
    with torch.profiler.profile() as seen, trainer(folder, max_epochs=1, enable_progress_bar=False) as run:
        run.fit(model, DataLoader(batches(30), batch_size=None))
    return str(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=44))


def main() -> None:
    given = arguments(__doc__ or "")
    numbers: dict[str, float] = {}
    notes = {
        "lightning_over_plain": "our step under a Trainer / the same math in a plain torch loop (aim 1.10)",
        "step_over_matmul": "our step / two bare products a layer (aim 2.0)",
        "epoch_over_steps": "an epoch of the data module / its steps on ready batches (aim 1.10)",
        "memory_local_over_summed": "peak saved for backward, per block / summed, 8 equal blocks (aim 0.2)",
    }
    with tempfile.TemporaryDirectory() as folder:
        for suffix, widths in NETS.items():
            measured = steps(widths, folder, 4 if given.quick else (40 if not suffix else 16))
            for name in ("lightning_over_plain", "step_over_matmul"):
                numbers[name + suffix] = measured[name]
            for name in ("lightning", "plain", "matmul"):
                numbers[f"ms_{name}{suffix}"] = 1e3 * measured[name]
            count, rounds = (10, 1) if given.quick else ((150, 5) if not suffix else (40, 3))
            numbers["epoch_over_steps" + suffix] = epochs(widths, folder, count, rounds)
        numbers.update(memory(folder))
        table = profile(NETS[""], folder)
    publish(numbers, notes, given.json)
    print("\nWhere 30 steps of 784-1000x3 go:\n" + table)


if __name__ == "__main__":
    main()
