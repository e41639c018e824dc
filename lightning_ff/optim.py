"""One optimizer per block behind one facade, and the same for schedulers.

The facade shares the inner optimizers' parameter groups and state, so that Lightning and torch see one ordinary
optimizer: counters, checkpoints, learning-rate monitor and finder all work.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class BlockOptimizers(Optimizer):
    """Facade over named optimizers: `step()` steps every one that learned since the last step.

    Args:
        optimizers: Name of the block to its optimizer, in order.

    Attributes:
        inner: The optimizers by name.
        learned: Names of those with new gradients; the learning loop fills it, `step` and `zero_grad` use it. Empty,
            as in torch's checkpoint tools or a loop of your own, it stands for all that hold gradients.
        latest: Names of those whose gradients the last backward was for.

    Raises:
        ValueError: two optimizers hold the same parameter.
    """

    latest: Sequence[str] = ()

    def __init__(self, optimizers: dict[str, Optimizer]) -> None:
        self.inner = dict(optimizers)
        self.learned: dict[str, None] = {}
        _check_disjoint(self.inner)
        first = next(iter(self.inner.values()))
        super().__init__([p for o in self.inner.values() for g in o.param_groups for p in g["params"]], first.defaults)
        for name, optimizer in self.inner.items():
            for i, group in enumerate(optimizer.param_groups):
                group["name"] = name if len(optimizer.param_groups) == 1 else f"{name}/{i}"
        state: defaultdict[Tensor, Any] = defaultdict(dict)
        for optimizer in self.inner.values():
            state.update(optimizer.state)
        self.state = state
        self.param_groups = [group for optimizer in self.inner.values() for group in optimizer.param_groups]
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for optimizer in self.inner.values():
            optimizer.__setstate__(
                {"state": self.state, "param_groups": [next(groups) for _ in optimizer.param_groups]}
            )

    def parameters(self, name: str) -> list[Tensor]:
        """Parameters of one inner optimizer."""
        return [p for group in self.inner[name].param_groups for p in group["params"]]

    def name_of(self, optimizer: Optimizer) -> str | None:
        """Name of an inner optimizer; None for the facade itself."""
        return next((name for name, inner in self.inner.items() if inner is optimizer), None)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every optimizer that learned."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for name in self._learners():
            self.inner[name].step()
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of every optimizer that learned."""
        for name in self._learners():
            self.inner[name].zero_grad(set_to_none)
        self.learned.clear()

    def _learners(self) -> list[str]:
        return list(self.learned) or [n for n in self.inner if any(p.grad is not None for p in self.parameters(n))]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused, once the facade is made: no inner optimizer would step the new group."""
        if self.param_groups:
            raise RuntimeError(
                f"add_param_group({sorted(param_group)}): no block's optimizer would step the new parameters; let them "
                "require gradients before fit, so that the optimizer of their block holds them"
            )
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load, and share state and groups with the inner optimizers again."""
        super().load_state_dict(state_dict)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        """State for a copy or a pickle: torch's own would leave the inner optimizers out."""
        return {**super().__getstate__(), "inner": self.inner, "learned": self.learned}

    def __repr__(self) -> str:
        rows = "\n".join(
            f"  {name}: {type(o).__name__}(lr={o.param_groups[0]['lr']})" for name, o in self.inner.items()
        )
        return f"{type(self).__name__}(\n{rows}\n)"


def _check_disjoint(optimizers: dict[str, Optimizer]) -> None:
    owner: dict[Tensor, str] = {}
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p in owner:
                    raise ValueError(
                        f"a parameter of shape {tuple(p.shape)} belongs to {owner[p]} and to {name}: shared weights "
                        "break locality; give every block its own"
                    )
                owner[p] = name


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
