"""Interface of a strategy to a learner, beyond Lightning's own hooks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor
from typing_extensions import override


class BlockwiseStrategy:
    """Base of strategies for local learning, with one backward per block; every process has all blocks by default."""

    @property
    def replicas(self) -> int:
        """Number of processes that hold the same blocks and split the batch."""
        return 1

    def reduce_gradients(self, names: Sequence[str]) -> None:
        """Reduce the gradients of these optimizers' blocks; called after their backward in a batch with a step."""

    def gather_values(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values by block of all processes of a pipeline, from those of this one's blocks."""
        return values

    def compare_labels(self, label: Tensor) -> None:
        """Compare this process's labels `(N,)` with those of the others of a pipeline, in an evaluation."""


class AnyStrategy(BlockwiseStrategy):
    """Adapter for any other strategy, which reduces gradients itself.

    Args:
        strategy: One of Lightning's own.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.processes: int = getattr(strategy, "world_size", 1)

    @property
    @override
    def replicas(self) -> int:
        return self.processes


def blockwise(strategy: Strategy) -> BlockwiseStrategy:
    """A strategy with this interface: itself, or an adapter."""
    return strategy if isinstance(strategy, BlockwiseStrategy) else AnyStrategy(strategy)


def hold_reductions(strategy: Strategy, hold: bool) -> AbstractContextManager[Any]:
    """Context manager that disables a strategy's own gradient reduction, for batches without a step."""
    no_sync = getattr(strategy, "block_backward_sync", None) if hold else None
    return nullcontext() if no_sync is None else no_sync()


def mean_values(strategy: Strategy, values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Means over all processes, in one message."""
    own = torch.tensor([*values.values()], dtype=torch.float32, device=device)
    means: Tensor = strategy.reduce(own, reduce_op="mean")
    return dict(zip(values, means.tolist(), strict=True))


def sum_over_replicas(strategy: Strategy, tensor: Tensor) -> Tensor:
    """Sum over the processes that hold the same blocks."""
    summed: Tensor = tensor if blockwise(strategy).replicas == 1 else strategy.reduce(tensor.clone(), reduce_op="sum")
    return summed
