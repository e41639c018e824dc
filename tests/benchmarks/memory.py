"""Memory that autograd keeps for backward: Scalable Forward-Forward against backprop, on torchvision models.

    python -m tests.benchmarks.memory --json memory.json

Bytes saved for backward at the worst moment of a training step, parameters excluded and auxiliary heads included, at
224 pixels, as a ratio: ours / plain backprop. `_recompute` is ours with recomputation inside the blocks, and
`_backprop_recompute` beside it backprop with the same. Where there is a GPU, the peak of whole runs
(`torch.cuda.max_memory_allocated`) stands beside it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_ff import Backprop, ScalableForwardForward
from tests.benchmarks.memory_meter import saved_for_backward
from tests.benchmarks.report import arguments, publish

AIMS = {
    "resnet18_k10": 0.50,
    "resnet18_k1000": 0.55,
    "mobilenet_v3_small_k10": 0.30,
    "mobilenet_v3_small_k1000": 0.60,
    "mobilenet_v3_large_k10": 0.25,
    "depth_32": 0.06,
    "resnet18_k10_recompute": 0.35,
}
SGD = partial(torch.optim.SGD, lr=1e-3)


class Unit(nn.Module):
    """A residual unit that keeps the shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.inner(x) + x).relu()


def stack(depth: int, channels: int = 16) -> nn.Module:
    """Equal residual units, and a classifier."""
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    return nn.Sequential(*(Unit(channels) for _ in range(depth)), head)


def step(model: LightningModule, shape: tuple[int, ...], classes: int, images: int, accelerator: str) -> Trainer:
    """Two training steps under a Trainer."""
    g = torch.Generator().manual_seed(0)
    batch = (torch.randn(images, *shape, generator=g), torch.randint(0, classes, (images,), generator=g))
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=1, accelerator=accelerator, devices=1, **off)  # type: ignore[arg-type]
    trainer.fit(model, DataLoader([batch, batch], batch_size=None))  # type: ignore[arg-type]
    return trainer


def saved(model: LightningModule, shape: tuple[int, ...], classes: int, images: int = 2) -> float:
    """MiB per image saved for backward at the worst moment, after a first step without counting."""
    with saved_for_backward(model) as meter:
        step(model, shape, classes, images, "cpu")
    return meter.peak / 2**20 / images


def pair(model: Any, shape: tuple[int, ...], classes: int, **parts: Any) -> tuple[Any, Any]:
    """Factories of ours and of backprop on the same network, with the smallest optimizer."""
    ours = partial(ScalableForwardForward, num_classes=classes, input_shape=shape, optimizer=SGD, **parts)
    plain = partial(Backprop, num_classes=classes, input_shape=shape, optimizer=SGD, **parts)
    make = (lambda: model) if isinstance(model, str) else model
    return lambda: ours(make()), lambda: plain(make())


def main() -> None:
    given = arguments(__doc__ or "")
    size = 64 if given.quick else 224
    cases: dict[str, tuple[Any, tuple[int, ...], int, dict[str, Any]]] = {
        f"{name}_k{classes}": (name, (3, size, size), classes, {})
        for name in ("resnet18", "mobilenet_v3_small", "mobilenet_v3_large")
        for classes in (10, 100, 1000)
    }
    for depth in (8, 16, 32):
        cases[f"depth_{depth}"] = (partial(stack, depth), (16, 32, 32), 10, {})
    cases["resnet18_k10_recompute"] = ("resnet18", (3, size, size), 10, {"recompute": True})
    numbers: dict[str, float] = {}
    for name, (model, shape, classes, parts) in cases.items():
        for arm, make in zip(("ours", "backprop"), pair(model, shape, classes, **parts), strict=True):
            numbers[f"mib_{arm}_{name}"] = saved(make(), shape, classes)
        numbers[name] = numbers[f"mib_ours_{name}"] / numbers[f"mib_backprop_{name.removesuffix('_recompute')}"]
        if torch.cuda.is_available():
            numbers.update(_on_gpu(name, model, shape, classes, parts))
    recomputed = numbers["mib_backprop_resnet18_k10_recompute"]
    numbers["resnet18_k10_backprop_recompute"] = recomputed / numbers["mib_backprop_resnet18_k10"]
    publish(numbers, {name: f"ours / backprop (aim {aim:.2f})" for name, aim in AIMS.items()}, given.json)


def _on_gpu(name: str, model: Any, shape: tuple[int, ...], classes: int, parts: dict[str, Any]) -> dict[str, float]:
    """Peak MiB of whole runs of 64 images a batch."""
    peaks = {}
    for arm, make in zip(("ours", "backprop"), pair(model, shape, classes, **parts), strict=True):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        step(make(), shape, classes, 64, "gpu")
        peaks[f"gpu_mib_{arm}_{name}"] = torch.cuda.max_memory_allocated() / 2**20
    return {**peaks, f"gpu_{name}": peaks[f"gpu_mib_ours_{name}"] / peaks[f"gpu_mib_backprop_{name}"]}


if __name__ == "__main__":
    main()
