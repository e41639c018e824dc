"""Draws of Python and NumPy in a forward pass are not recorded as constants, and its lists stay as they were."""

from __future__ import annotations

import io
import random
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_ff.blocks import partition

SOURCES: dict[str, Any] = {
    "python": lambda module: random.random(),
    "numpy": lambda module: np.random.rand(),
    "own python": lambda module: module.python.random(),
    "own numpy": lambda module: module.generator.random(),
    "own legacy": lambda module: module.legacy.rand(),
}


class Skips(nn.Module):
    """A residual block that is left out at random in training."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.linear = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.source = source
        self.python, self.generator, self.legacy = random.Random(0), np.random.default_rng(0), np.random.RandomState(0)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and SOURCES[self.source](self) < 0.5:
            return x
        return x + self.linear(x)


class Network(nn.Module):
    """Two of them between linear layers."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.first, self.a, self.b, self.last = nn.Linear(8, 8), Skips(source), Skips(source), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.b(self.a(self.first(x))))


def seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)


@pytest.mark.parametrize("source", SOURCES)
def test_a_module_that_draws_is_kept_whole_whatever_the_seed(source: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 8)
    for number in range(4):
        seed(number)
        before = random.random(), np.random.rand()
        seed(number)
        model = Network(source)
        blocks = partition(model, cuts="finest")
        assert (random.random(), np.random.rand()) == before
        cut = nn.Sequential(*blocks)
        model.eval()
        assert torch.equal(cut.eval()(x), model(x))
        model.train()
        cut.train()
        assert 2 <= len({tuple(cut(x).flatten().tolist()) for _ in range(30)}) <= 4


@pytest.mark.parametrize("source", ["python", "numpy"])
def test_a_draw_in_the_models_own_forward_is_refused_whatever_the_seed(source: str) -> None:
    for number in range(4):
        seed(number)
        with pytest.raises(ValueError, match="by Python's or NumPy's generators, which would be recorded as constants"):
            partition(Skips(source), cuts="finest")


class Collects(nn.Module):
    """Keeps what passes in lists and dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 3)
        self.seen: list[Any] = [1]
        self.recent: deque[Any] = deque([2], maxlen=2)
        self.by_name: dict[str, Any] = {"x": 3}

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        self.seen.append(x)
        self.recent.append(x)
        self.by_name["a"] = x
        return self.b(x)


def test_what_a_forward_collects_is_as_before() -> None:
    model = Collects()
    partition(model, cuts="finest")
    assert (model.seen, list(model.recent), model.by_name) == ([1], [2], {"x": 3})
    torch.save(model, io.BytesIO())
