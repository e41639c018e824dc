"""One learning-rate scheduler per block behind one object, and the cosine that ends with the run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_ff.optim.block_optimizers import BlockOptimizers


class BlockSchedulers:
    """One learning-rate scheduler per inner optimizer behind one object; each counts only its own steps.

    Args:
        optimizer: The facade.
        schedulers: Name of the block to the scheduler on its optimizer.
    """

    def __init__(self, optimizer: BlockOptimizers, schedulers: dict[str, LRScheduler]) -> None:
        self.optimizer = optimizer
        self.inner = schedulers

    @property
    def on_plateau(self) -> bool:
        """Whether `step` wants the value of a metric."""
        return any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in self.inner.values())

    def step(self, metric: float | Tensor | None = None, names: Iterable[str] | None = None) -> None:
        """Step the named schedulers, or all; those that react to a plateau need the metric."""
        for name in self.inner if names is None else names:
            scheduler = self.inner[name]
            if isinstance(scheduler, ReduceLROnPlateau):
                assert metric is not None
                scheduler.step(float(metric))
            else:
                scheduler.step()

    def get_last_lr(self) -> list[float]:
        """Current learning rate of every parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """State of every inner scheduler by name."""
        return {name: scheduler.state_dict() for name, scheduler in self.inner.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of every inner scheduler."""
        for name, state in state_dict.items():
            self.inner[name].load_state_dict(state)


class CosineToEnd(LRScheduler):
    """Cosine decay that ends with the run: its length follows `trainer.max_epochs` (or `max_steps`).

    Args:
        optimizer: Optimizer.
        total: Number of `step()` calls of the decay; None lets the learner fill in the length of the run.
        flat: Share of the run at the full rate before the decay begins, in [0, 1).
        end: Rate at the end as a share of the full rate.

    Raises:
        ValueError: flat outside [0, 1), end outside [0, 1], or total below 1.
    """

    def __init__(self, optimizer: Optimizer, total: int | None = None, flat: float = 0.0, end: float = 0.0) -> None:
        if not 0 <= flat < 1:
            raise ValueError(f"flat={flat}: must lie in [0, 1)")
        if total is not None and total < 1:
            raise ValueError(f"total={total}: must be at least 1")
        self.total = total
        self.flat = flat
        self.end = end
        if not 0 <= end <= 1:
            raise ValueError(f"end={end}: must lie in [0, 1]")
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """State without `total`, which belongs to the run: a resumed run may be made longer."""
        return {key: value for key, value in super().state_dict().items() if key != "total"}

    def get_lr(self) -> list[float | Tensor]:
        """Rates at the current step."""
        if self.total is None:
            return list(self.base_lrs)
        start = self.flat * self.total
        progress = min(1.0, max(0.0, self.last_epoch - start) / (self.total - start))
        factor = self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2
        return [rate * factor for rate in self.base_lrs]
