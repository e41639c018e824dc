"""Helpers of the tests of class-mode methods: small networks, their batches, a quiet Trainer."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_ff import ScalableForwardForward

CLASSES, SHAPE, BATCH, STEPS = 5, (3, 8, 8), 6, 20
ADAM = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1)
SGD = partial(torch.optim.SGD, lr=1e-2, momentum=0.9)


class Residual(nn.Module):
    """Two convolutions around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


class Net(nn.Module):
    """Stem, two residual modules, classifier: four blocks."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.first = Residual(8)
        self.second = Residual(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.second(self.first(self.stem(x)))), 1))

    def stages(self) -> list[nn.Module]:
        return [self.stem, self.first, self.second, nn.Sequential(self.pool, nn.Flatten(), self.fc)]


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def learner(model: Any = None, **arguments: Any) -> ScalableForwardForward:
    return ScalableForwardForward(model or net(), CLASSES, SHAPE, **{"optimizer": SGD, **arguments})


def data(steps: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(steps * BATCH, *SHAPE, generator=g)
    y = torch.randint(0, CLASSES, (steps * BATCH,), generator=g)
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def quiet(**flags: Any) -> Trainer:
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(**{"max_epochs": 1, "accelerator": "cpu", **off, **flags})


def fit(model: LightningModule, steps: int = STEPS, **flags: Any) -> Trainer:
    trainer = quiet(**flags)
    trainer.fit(model, DataLoader(data(steps), batch_size=None))  # type: ignore[arg-type]
    return trainer


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone().double() for name, value in model.state_dict().items()}


def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max()) for key in a)
