"""Networks whose recorded forward is not their own raise errors, or are kept whole if possible."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.blocks import partition

SHAPE = (3, 8, 8)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Identity())
        self.fc = nn.Linear(8, 5)

    def inner(self, h: Tensor) -> Tensor:
        return h

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.inner(self.a(x)).mean((2, 3)))


class AsksForTensors(Base):
    def inner(self, h: Tensor) -> Tensor:
        return h.relu() if isinstance(h, Tensor) else h


class Draws(Base):
    def inner(self, h: Tensor) -> Tensor:
        return h * 0 if self.training and torch.rand(()).item() < 0.5 else h + 1


@pytest.mark.parametrize(
    ("net", "message"),
    [(AsksForTensors, "in training, its blocks give another output"), (Draws, "it draws random numbers")],
)
def test_a_forward_that_a_recording_does_not_see_is_refused(net: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"model={net.__name__}: .*{message}"):
        partition(net(), input_shape=SHAPE)


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training and torch.rand(()).item() < 0.5 else self.conv(x)


def test_a_module_that_draws_is_kept_whole() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Branch(), nn.Conv2d(8, 8, 3))
    blocks, x = partition(net, "layers", input_shape=SHAPE), torch.randn(2, *SHAPE)
    outputs = set()
    for seed in range(10):
        torch.manual_seed(seed)
        want = net(x)
        torch.manual_seed(seed)
        assert torch.equal(blocks(x), want)
        outputs.add(float(want.detach().sum()))
    assert len(outputs) == 2


def test_named_modules_are_compared_in_training_too() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = net, nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] != 3:
                raise ValueError
            return self.b(F.dropout(self.a(x), 0.5, self.training))

    with pytest.raises(ValueError, match="in training, its blocks give another output"):
        partition(Chain(), ["a", "b"], input_shape=SHAPE)


class Frozen(nn.Module):
    """A part that runs without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.c(x)
        return self.d(x)


def test_a_part_without_gradients_stays_without() -> None:
    net = nn.Sequential(Frozen(), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    partition(net, "layers", input_shape=SHAPE)(torch.randn(2, *SHAPE)).sum().backward()
    assert net[0].c.weight.grad is None
    assert net[0].d.weight.grad is not None
    with pytest.raises(ValueError, match="no_grad"):
        partition(Frozen(), "layers", input_shape=SHAPE)


def test_the_comparison_changes_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 2, 3)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch.manual_seed(3)
    random.seed(3)
    partition(net, "layers", input_shape=SHAPE)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert net.training
