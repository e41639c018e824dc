"""Learning-rate schedulers of a run: creation, length and steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_ff.optim import BlockOptimizers, BlockSchedulers, run_length
from lightning_ff.sweep import Sweep

Interval = Literal["epoch", "step"]


def make_schedulers(
    optimizers: BlockOptimizers,
    factory: Callable[[Optimizer], LRScheduler],
    interval: Interval,
    monitor: str | None,
    validates: bool,
) -> BlockSchedulers:
    """One scheduler per optimizer.

    Raises:
        ValueError: a scheduler for a plateau without validation or with an interval, or a metric for another one.
    """
    made = BlockSchedulers(optimizers, {name: factory(each) for name, each in optimizers.by_block.items()})
    plateau = ReduceLROnPlateau.__name__
    if made.on_plateau and not validates:
        raise ValueError(
            f"scheduler={plateau} steps after validation, and this run has none: give validation data, or a scheduler "
            "that counts epochs or steps"
        )
    if made.on_plateau and interval == "step":
        raise ValueError(
            f"scheduler_interval='step' with scheduler={plateau}, which steps after validation: leave the interval out"
        )
    if monitor is not None and not made.on_plateau:
        raise ValueError(f"scheduler_monitor={monitor!r}: only {plateau} monitors a metric, leave it out")
    return made


def set_length(trainer: Trainer, sweep: Sweep, accumulate: int, interval: Interval) -> None:
    """Set the length of the run for schedulers that end with it.

    Called when training starts: the length needs the loader, and a loader created before Lightning has read the
    checkpoint does not get its state, so that a run resumed in the middle of an epoch would restart that epoch.
    """
    for config in trainer.lr_scheduler_configs:
        made: Any = config.scheduler
        if isinstance(made, BlockSchedulers):
            made.set_length(lambda name: _length(trainer, _epochs(sweep, name), accumulate, interval))


def _epochs(sweep: Sweep, name: str) -> float:
    """Number of epochs in which the module of an optimizer learns."""
    own = next((segment for segment in sweep.segments if name in sweep.names(segment)), None)
    scheduled = None if own is None else sweep.schedule.epochs(own)
    return math.inf if scheduled is None else scheduled


def _length(trainer: Trainer, at_most: float, accumulate: int, interval: Interval) -> int:
    """Number of scheduler steps in the run."""
    epochs, steps = (math.inf if limit in (None, -1) else limit for limit in (trainer.max_epochs, trainer.max_steps))
    batches = trainer.num_training_batches
    length = run_length(min(epochs, at_most), steps, batches, accumulate, interval)
    if length is None:
        raise ValueError(
            f"scheduler=CosineToEnd(total=None) follows the run's length, which max_epochs={trainer.max_epochs}, "
            f"max_steps={trainer.max_steps} and a loader of {batches} batches leave open for "
            f"scheduler_interval={interval!r}: set max_epochs or max_steps, or give total"
        )
    return length


def learning(sweep: Sweep) -> list[str]:
    """Names of the optimizers that step in this epoch: a scheduler counts only its own block's epochs and steps."""
    segments = [segment for segment in sweep.segments if sweep.schedule.learns(segment, sweep.epoch)]
    names = dict.fromkeys(name for segment in segments for name in sweep.names(segment))  # segments may overlap
    return [*names] + ["readout"] * sweep.reads_out


def step_after_batch(trainer: Trainer, sweep: Sweep, updates: bool) -> None:
    """Step the schedulers that count optimizer steps, and at the end of an epoch those that count epochs.

    Not in on_train_epoch_end: a resumed run skips that hook after a checkpoint of the last batch, and under max_steps
    runs it twice after a checkpoint of the epoch's end.
    """
    if not trainer.lr_scheduler_configs:
        return
    names = learning(sweep)
    if updates:
        _step(trainer, "step", names)
    if trainer.is_last_batch:
        _step(trainer, "epoch", names)


def _step(trainer: Trainer, interval: Interval, names: Sequence[str]) -> None:
    """Step the schedulers of this interval, except those that monitor a metric."""
    for config in trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        ours = isinstance(scheduler, BlockSchedulers)
        if config.interval == interval and not (ours and scheduler.on_plateau):
            scheduler.step(*([None, names] if ours else []))


def step_on_plateau(trainer: Trainer, monitor: str | None, metrics: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Step the schedulers that monitor a metric of validation; None is "val/loss"."""
    monitor = monitor or "val/loss"
    for config in trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        if isinstance(scheduler, BlockSchedulers) and scheduler.on_plateau:
            if monitor not in metrics:
                raise ValueError(
                    f"scheduler_monitor={monitor!r} is not logged: choose one of {', '.join(sorted(metrics))}"
                )
            scheduler.step(metrics[monitor], names)
