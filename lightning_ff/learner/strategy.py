"""What a learner asks of its strategy beyond Lightning's own hooks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor


@runtime_checkable
class BlockwiseStrategy(Protocol):
    """A strategy made for many local backwards."""

    @property
    def replicas(self) -> int:
        """Number of processes that hold the same blocks, and share out the batch."""

    def reduce_gradients(self, names: Sequence[str]) -> None:
        """The backward of these optimizers' blocks has ended, and their step comes with this batch."""

    def gather_values(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values by block of all processes of a pipeline, from those of this one's blocks."""

    def compare_labels(self, label: Tensor) -> None:
        """Note, in an evaluation, whether this process reads the samples with labels `(N,)` that the others read."""


class AnyStrategy:
    """The same of a strategy that is not made for it: every process has all blocks.

    Args:
        strategy: One of Lightning's own.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.replicas: int = getattr(strategy, "world_size", 1)

    def reduce_gradients(self, names: Sequence[str]) -> None:
        """The strategy reduces gradients itself."""

    def gather_values(self, values: dict[str, Any]) -> dict[str, Any]:
        """They are values of all blocks already."""
        return values

    def compare_labels(self, label: Tensor) -> None:
        """Processes read other samples, as they should."""


def blockwise(strategy: Strategy) -> BlockwiseStrategy:
    """A strategy by what a learner asks of it."""
    return strategy if isinstance(strategy, BlockwiseStrategy) else AnyStrategy(strategy)


def hold_reductions(strategy: Strategy, hold: bool) -> AbstractContextManager[Any]:
    """Between optimizer steps, strategies that reduce gradients by themselves are told to wait."""
    waiting = getattr(strategy, "block_backward_sync", None) if hold else None
    return nullcontext() if waiting is None else waiting()


def mean_values(strategy: Strategy, values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Means over all processes, in one message; none where all of them have the same values."""
    if blockwise(strategy).replicas == 1:
        return values
    own = torch.tensor([*values.values()], dtype=torch.float32, device=device)
    means: Tensor = strategy.reduce(own, reduce_op="mean")
    return dict(zip(values, means.tolist(), strict=True))
