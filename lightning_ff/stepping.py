"""Stepping: a learner's optimizers and schedulers, and when they step."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from lightning_ff import configure
from lightning_ff.optim import BlockOptimizers, BlockSchedulers
from lightning_ff.recording import Recording
from lightning_ff.sweep import Schedule, Segment


class Stepping(Recording):
    """One optimizer and one scheduler per block, stepped by the learner; the arguments are the learner's."""

    facade: BlockOptimizers
    segments: list[Segment]
    schedule: Schedule
    scheduler_interval: str
    gradient_clip_val: float | None
    gradient_clip_algorithm: str

    @override
    def configure_optimizers(self) -> Any:
        self.facade = configure.optimizers(self)  # type: ignore[arg-type]
        schedulers = configure.schedulers(self, self.facade)  # type: ignore[arg-type]
        if schedulers is None:
            return {"optimizer": self.facade}
        interval = self.scheduler_interval
        return {"optimizer": self.facade, "lr_scheduler": {"scheduler": schedulers, "interval": interval}}

    @property
    def reads_out(self) -> bool:
        """Whether the readout has parameters and learns beside the blocks."""
        return "readout" in self.facade.inner

    def _owners(self, segment: Segment) -> list[str]:
        """Names of the optimizers of a segment's blocks; blocks without trainable parameters have none."""
        return [name for k in segment.blocks if (name := self.network.names[k]) in self.facade.inner]

    def _step(self) -> None:
        """One tick of the trainer's counters; steps every optimizer that has learned and not stepped yet."""
        self.optimizers().step()  # type: ignore[union-attr]
        self.facade.zero_grad()
        self._step_schedulers("step")

    def _step_block(self, name: str) -> None:
        optimizer = self.facade.inner[name]
        self.trainer.strategy.optimizer_step(optimizer, _nothing)
        optimizer.zero_grad(set_to_none=True)
        self.facade.learned.pop(name)

    def _hold_reductions(self) -> AbstractContextManager[Any]:
        """Between optimizer steps, strategies that reduce gradients are told to wait."""
        hold = getattr(self.trainer.strategy, "block_backward_sync", None)
        return hold() if hold is not None and not self._steps_now else nullcontext()

    def _step_schedulers(self, interval: str, metrics: Mapping[str, Tensor] | None = None) -> None:
        """Step the schedulers of this interval; with metrics, those that wait for a plateau."""
        for config in self.trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            plateau = isinstance(scheduler, BlockSchedulers) and scheduler.on_plateau
            if plateau and metrics is not None:
                scheduler.step(configure.monitored(self, metrics), self._learners())  # type: ignore[arg-type]
            elif not plateau and metrics is None and config.interval == interval:
                scheduler.step(*([None, self._learners()] if isinstance(scheduler, BlockSchedulers) else []))

    def _learners(self) -> list[str]:
        """Names of the optimizers that learn now: a scheduler counts only its own block's epochs and steps."""
        segments = [s for s in self.segments if self.schedule.learns(s)]
        return [name for s in segments for name in self._owners(s)] + ["readout"] * self.reads_out

    @override
    def on_validation_epoch_end(self) -> None:
        self.network.placement.agree()
        if self._fits:
            self.network.readout.fit(self._sum_over_processes)
            self._step_schedulers("epoch", self.trainer.callback_metrics)

    @override
    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.gradient_clip_val is None:
            return
        name = self.facade.name_of(optimizer)
        for block in list(self.facade.learned) if name is None else [name]:
            parameters = self.facade.parameters(block)
            if self.gradient_clip_algorithm == "norm":
                torch.nn.utils.clip_grad_norm_(parameters, self.gradient_clip_val)
            else:
                torch.nn.utils.clip_grad_value_(parameters, self.gradient_clip_val)

    @override
    def on_validation_model_zero_grad(self) -> None:
        """No gradient is dropped: those that are being accumulated survive a validation in between."""


def _nothing() -> None:
    """The closure of a step whose gradients are there already."""
