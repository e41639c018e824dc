"""One learning-rate scheduler per block behind one object, and a cosine decay that ends with the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_ff._torch import combined_schedulers
from lightning_ff.optim.block_optimizers import BlockOptimizers
from lightning_ff.optim.settings import check_kinds, plain, settings_of, warn_of
from lightning_ff.validate import check_int, check_number


class BlockSchedulers:
    """One learning-rate scheduler per block's optimizer behind one object; each counts only its own steps.

    Args:
        optimizer: The facade.
        schedulers: Name of the block to the scheduler on its optimizer.
    """

    def __init__(self, optimizer: BlockOptimizers, schedulers: dict[str, LRScheduler]) -> None:
        self.optimizer = optimizer
        self.by_block = schedulers

    @property
    def on_plateau(self) -> bool:
        """Whether `step` needs the value of a metric."""
        return any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in self.by_block.values())

    def step(self, metric: float | Tensor | None = None, names: Iterable[str] | None = None) -> None:
        """Step the named schedulers, or all; `ReduceLROnPlateau` needs the metric."""
        for name in self.by_block if names is None else names:
            scheduler = self.by_block[name]
            if isinstance(scheduler, ReduceLROnPlateau):
                assert metric is not None
                scheduler.step(float(metric))
            else:
                scheduler.step()

    def get_last_lr(self) -> list[float]:
        """Current learning rate of every parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """State of every scheduler by name, with the name of its class."""
        made = self.by_block.items()
        return {name: {**plain(scheduler.state_dict()), "kind": type(scheduler).__name__} for name, scheduler in made}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of every scheduler; for settings see `BlockOptimizers.load_state_dict`.

        Raises:
            ValueError: the state is of another class of schedulers.
        """
        kinds = {name: type(scheduler).__name__ for name, scheduler in self.by_block.items()}
        check_kinds(kinds, {k: v["kind"] for k, v in state_dict.items() if "kind" in v}, "the scheduler")
        differences = []
        for name, saved in state_dict.items():
            own = settings_of(self.by_block[name])
            self.by_block[name].load_state_dict({key: value for key, value in saved.items() if key != "kind"})
            loaded = settings_of(self.by_block[name])
            if self.optimizer.own_settings:
                vars(self.by_block[name]).update(own)
            else:
                names = [key for key in own if own[key] != loaded.get(key) and key not in ("base_lrs", "total")]
                differences += [f"{name} {key}={loaded.get(key)} (here {own[key]})" for key in names]
        warn_of(differences)

    def set_length(self, length: Callable[[str], int]) -> None:
        """Set the number of steps of schedulers that end with the run, by the optimizer's name."""
        for name, scheduler in self.by_block.items():
            for cosine, start in _cosines_without_total(scheduler):
                cosine.total = max(1, length(name) - start)


class CosineToEnd(LRScheduler):
    """Cosine decay that ends with the run: its length follows `trainer.max_epochs` (or `max_steps`).

    Args:
        optimizer: Optimizer.
        total: Number of `step()` calls of the decay; None is set to the length of the run by the learner.
        flat: Share of the run at the full learning rate before the decay starts, in [0, 1).
        end: Learning rate at the end, as a share of the full one.

    Raises:
        ValueError: flat outside [0, 1), end outside [0, 1], or total below 1.
    """

    def __init__(self, optimizer: Optimizer, total: int | None = None, flat: float = 0.0, end: float = 0.0) -> None:
        check_number("flat", flat, "must lie in [0, 1)", least=0)
        check_number("end", end, "must lie in [0, 1]", least=0)
        if flat >= 1:
            raise ValueError(f"flat={flat}: must lie in [0, 1)")
        if total is not None:
            check_int("total", total, "give the number of steps, or None")
            check_number("total", total, "must be at least 1", least=1)
        self.total = total
        self.flat = flat
        self.end = end
        if end > 1:
            raise ValueError(f"end={end}: must lie in [0, 1]")
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """State without `total`, which belongs to the run: a resumed run may be made longer."""
        return {key: value for key, value in super().state_dict().items() if key != "total"}

    def get_lr(self) -> list[float | Tensor]:
        """Learning rates at the current step."""
        if self.total is None:
            return list(self.base_lrs)
        start = self.flat * self.total
        progress = min(1.0, max(0.0, self.last_epoch - start) / (self.total - start))
        factor = self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2
        return [rate * factor for rate in self.base_lrs]


def _cosines_without_total(scheduler: object, start: int = 0) -> Iterator[tuple[CosineToEnd, int]]:
    """Schedulers that follow the run's length, also inside torch's combined ones, each with its first step."""
    if isinstance(scheduler, CosineToEnd) and scheduler.total is None:
        yield scheduler, start
    for each, offset in combined_schedulers(scheduler):
        yield from _cosines_without_total(each, start + offset)


def run_length(
    epochs: float, steps: float, batches: float, accumulate: int, interval: Literal["epoch", "step"]
) -> int | None:
    """Number of scheduler steps in a run; None if its limits do not determine it.

    Args:
        epochs: Limit of epochs, infinite for none.
        steps: Limit of optimizer steps, infinite for none.
        batches: Batches of an epoch, infinite if unknown.
        accumulate: Batches per optimizer step.
        interval: Schedulers step after every "epoch" or every optimizer "step".
    """
    per_epoch = math.ceil(batches / accumulate) if math.isfinite(batches) else math.inf
    if interval == "step":
        length = min(steps, epochs * per_epoch)
    else:
        length = epochs if math.isinf(per_epoch) else min(epochs, steps / per_epoch)
    return None if math.isinf(length) else max(1, math.ceil(length))
