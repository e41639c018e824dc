"""Helpers of the tables of bad input: rows, their check, small blocks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from lightning_ff import CrossEntropy, LinearGoodness, LocalBlock, LocalNetwork, SumReadout

OPTIMIZER = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)


class Bad(NamedTuple):
    """What is done with the fixtures, what the message holds, and the error's type."""

    act: Callable[[Any], object]
    parts: tuple[str, ...]
    error: type[Exception] = ValueError


def does(act: Callable[[Any], object], *parts: str, error: type[Exception] = ValueError) -> Bad:
    return Bad(act, parts, error)


def layer(inputs: int = 64, outputs: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs), nn.ReLU())


def block(*goodness_and_loss: Any, inputs: int = 64, **arguments: Any) -> LocalBlock:
    return LocalBlock(layer(inputs), *goodness_and_loss, **arguments)


def class_block(inputs: int = 64) -> LocalBlock:
    return block(LinearGoodness(), CrossEntropy(), inputs=inputs)


def network(*blocks: LocalBlock, labels: Any = None) -> LocalNetwork:
    return LocalNetwork(blocks, (1, 8, 8), 10, SumReadout(), labels)


def refused(bad: Bad, world: SimpleNamespace) -> None:
    """The error is of this very type, and its message holds every part."""
    with pytest.raises(bad.error) as caught:
        bad.act(world)
    assert type(caught.value) is bad.error
    for part in bad.parts:
        assert part in str(caught.value), f"{part!r} is not in {str(caught.value)!r}"
