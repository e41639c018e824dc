"""LocalLearner: the one training loop. A method only chooses the parts it runs with.

Shapes: N samples, P positives, M negatives, C classes, K blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from lightning_ff import checks, configure
from lightning_ff._lightning import trainer_of
from lightning_ff.batch import unpack
from lightning_ff.blocks.local_block import Activation, LocalBlock, detach, first
from lightning_ff.labels import LabelEncoding
from lightning_ff.negatives import NegativeSampler
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import LocalLoss
from lightning_ff.optim import BlockOptimizers, BlockSchedulers
from lightning_ff.recording import Recording
from lightning_ff.spec import factory, part
from lightning_ff.sweep import Placement, Schedule, Segment, SweepResult

Objective = Literal["local", "sum_of_losses", "loss_of_sum", "last"]


class LocalLearner(Recording):
    """Trains a :class:`~lightning_ff.network.LocalNetwork` block by block, each block from its own loss.

    Args:
        network: The blocks and how they predict.
        segments: What is differentiated. "local": every block its own loss. The others make the whole network one
            segment, as controls: "sum_of_losses" (deep supervision), "loss_of_sum" (one loss on the summed goodness),
            "last" (the last block's loss: plain backprop).
        backward: "per_block" frees each segment's graph before the next is built; "summed" runs one backward on the
            sum of the losses: equal weights, more memory.
        step: "batch" steps every optimizer after the sweep; "block" steps each as soon as its gradients are there and
            frees them: least memory. Equal weights.
        optimizer: Factory of one optimizer per block, called with the block's parameters.
        scheduler: Factory of one learning-rate scheduler per optimizer.
        scheduler_interval: When schedulers step: after every "epoch" or every optimizer "step".
        scheduler_monitor: Metric for a scheduler that reacts to a plateau; such a one steps after validation.
        block_optimizers: Other optimizer factories by name of the block ("block00", "readout"); wildcards are allowed.
        gradient_clip_val: Bound on the gradients of each block.
        gradient_clip_algorithm: The bound is on their "norm" or on each "value".
        accumulate_grad_batches: Batches per optimizer step; gradients are averaged.
        negatives: Negative sampler (pair mode); None chooses wrong labels, or hybrid images where no label is written.
        augment: Module applied to training images as a whole batch, on the device.

    Raises:
        ValueError: an argument does not fit; the message names it.
    """

    facade: BlockOptimizers

    def __init__(
        self,
        network: LocalNetwork,
        segments: Objective = "local",
        backward: Literal["per_block", "summed"] = "per_block",
        step: Literal["batch", "block"] = "batch",
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = Adam,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        scheduler_monitor: str = "val/loss",
        block_optimizers: dict[str, Callable[[Iterable[nn.Parameter]], Optimizer]] | None = None,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        accumulate_grad_batches: int = 1,
        negatives: NegativeSampler | None = None,
        augment: nn.Module | None = None,
    ) -> None:
        super().__init__()
        configure.remember(self, ignore=["network", "blocks"])
        checks.choices(
            backward=backward,
            step=step,
            scheduler_interval=scheduler_interval,
            gradient_clip_algorithm=gradient_clip_algorithm,
        )
        self.automatic_optimization = False
        self.network = network
        self.segments = configure.segments(network, segments)
        self.objective: Objective = segments
        self.backward_mode = backward
        self.step_mode = step
        self.optimizer = factory(optimizer)
        self.scheduler = factory(scheduler)
        self.scheduler_interval = scheduler_interval
        self.scheduler_monitor = scheduler_monitor
        self.block_optimizers = {name: factory(made) for name, made in (block_optimizers or {}).items()}
        self.gradient_clip_val = gradient_clip_val
        self.gradient_clip_algorithm = gradient_clip_algorithm
        self.accumulate_grad_batches = accumulate_grad_batches
        self.negatives = configure.default_negatives(network, part(negatives))
        self.augment = part(augment)
        self.schedule = Schedule()
        self.batch_number = 0
        self.new_lr: float | None = None
        self.example_input_array = torch.zeros(1, *network.input_shape)
        checks.arguments(self)
        self._build_metrics()

    # What a sampler, a callback or a readout may ask

    @property
    def blocks(self) -> list[LocalBlock]:
        """The blocks, in order."""
        return list(self.network.blocks)  # type: ignore[arg-type]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.network.num_classes

    @property
    def labels(self) -> LabelEncoding:
        """The label encoding (pair mode)."""
        assert self.network.labels is not None
        return self.network.labels

    @property
    def lr(self) -> float:
        """Learning rate of `optimizer`; a new value counts from the next `fit`, so `Tuner(trainer).lr_find` works."""
        return configure.rate(self) if self.new_lr is None else self.new_lr

    @lr.setter
    def lr(self, rate: float) -> None:
        self.new_lr = rate

    @property
    def placement(self) -> Placement:
        """The strategy's answer to where blocks are; one process has them all."""
        trainer = trainer_of(self)
        strategy = trainer.strategy if trainer is not None else None
        return getattr(strategy, "placement", None) or Placement()

    # The sweep

    def sweep(self, x: Activation, target: Tensor | int) -> SweepResult:
        """Run the segments in order, each with its own loss and backward.

        Args:
            x: Input of the first segment that runs, already encoded and normalised.
            target: Number of positives (pair mode) or labels `(N,)` (class mode).

        Returns:
            Detached losses, goodness and, where a readout learns from the sweep, features.
        """
        placement, result, losses = self.placement, SweepResult(), []
        x = placement.receive(x)
        running, onwards = self._route(placement)
        for segment, learns in running:
            with torch.set_grad_enabled(learns):
                loss, h = self._run_segment(segment, x, target, learns, result)
            if loss is not None:
                result.losses[segment.name] = loss.detach()
                if self.backward_mode == "summed":
                    losses.append(loss)
                else:
                    self._learn(loss, segment)
            if onwards or segment is not running[-1][0]:
                with torch.no_grad():
                    x = self._block(segment.blocks[-1]).hand_over(detach(h))
                self._collect(x, target, result)
        if losses:
            names = [name for segment, learns in running if learns for name in self._owners(segment)]
            self._backward(torch.stack(losses).sum(), names)
        if placement.sends:
            placement.send(x)
        return result

    def _route(self, placement: Placement) -> tuple[list[tuple[Segment, bool]], bool]:
        """Segments that run here, with whether they learn, and whether the last output is wanted."""
        mine = [
            (segment, self.schedule.learns(segment) and bool(self._owners(segment)))
            for segment in self.segments[self.schedule.start() :]
            if placement.owns(segment)
        ]
        onwards = placement.sends or self._reads_sweep
        while mine and not onwards and not mine[-1][1]:
            mine.pop()
        return mine, onwards

    def _run_segment(
        self, segment: Segment, x: Activation, target: Tensor | int, learns: bool, result: SweepResult
    ) -> tuple[Tensor | None, Activation]:
        """Forward through a segment's blocks; returns its loss, if it learns, and the last activation."""
        positives = target if isinstance(target, int) else None
        goodness: list[Tensor] = []
        terms: list[Tensor] = []
        h = x
        for k in segment.blocks:
            block = self._block(k)
            if block.training != learns:
                block.train(learns)
            h, g = block(x, positives=positives, measure=learns)
            if g is not None:
                result.goodness[self.network.names[k]] = g.detach()
                goodness.append(g)
            if learns:
                terms += [term(first(x), first(h), target) for term in block.terms]
            if k != segment.blocks[-1]:
                x = block.hand_over(h)
                self._collect(x, target, result)
        return (self._loss(segment, goodness, target, terms) if learns else None), h

    def _loss(self, segment: Segment, goodness: list[Tensor], target: Tensor | int, terms: list[Tensor]) -> Tensor:
        """The segment's loss on its blocks' goodness, plus their terms."""
        losses: list[LocalLoss] = [self._block(k).loss for k in segment.blocks]  # type: ignore[misc]
        if self.objective == "loss_of_sum":
            loss = losses[-1](torch.stack(goodness).sum(0), target)
        elif self.objective == "last":
            loss = losses[-1](goodness[-1], target)
        else:
            loss = sum(of_block(g, target) for of_block, g in zip(losses, goodness, strict=True))
        return sum(terms, loss)

    def _learn(self, loss: Tensor, segment: Segment) -> None:
        """One segment's backward, and its step where blocks step on their own."""
        names = self._owners(segment)
        self._backward(loss, names)
        if self.step_mode == "block" and self._steps_now:
            for name in names:
                self._step_block(name)

    def _backward(self, loss: Tensor, names: list[str]) -> None:
        """Backward through the strategy, told whose gradients these are: one optimizer's, or the facade's."""
        share = self.accumulate_grad_batches
        owner = self.facade.inner[names[0]] if len(names) == 1 else self.facade
        self.trainer.strategy.backward(loss / share if share > 1 else loss, owner)
        self.facade.learned.update(dict.fromkeys(names))

    def _step_block(self, name: str) -> None:
        optimizer = self.facade.inner[name]
        self.trainer.strategy.optimizer_step(optimizer, _nothing)
        optimizer.zero_grad(set_to_none=True)
        self.facade.learned.pop(name)

    def _learn_readout(self, image: Tensor, label: Tensor, result: SweepResult) -> None:
        """The readout's backward on detached features of its view."""
        features = result.features
        if not self._reads_sweep:
            with torch.no_grad(), self.evaluating():
                features = self.network.handed_over(image)
        loss = F.cross_entropy(self.network.readout([h.detach() for h in features]).float(), label)
        result.losses["readout"] = loss.detach()
        self._backward(loss, ["readout"])
        if self.step_mode == "block" and self._steps_now:
            self._step_block("readout")

    def _collect(self, x: Activation, target: Tensor | int, result: SweepResult) -> None:
        """Keep what a block hands on, where the readout learns from the sweep."""
        if self._reads_sweep:
            h = first(x).detach()
            result.features.append(h[:target] if isinstance(target, int) else h)

    def _block(self, k: int) -> LocalBlock:
        return self.network.blocks[k]  # type: ignore[return-value]

    def _owners(self, segment: Segment) -> list[str]:
        """Names of the optimizers of a segment's blocks; blocks without trainable parameters have none."""
        return [name for k in segment.blocks if (name := self.network.names[k]) in self.facade.inner]

    # One training step

    @override
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        image, label, index = unpack(batch)
        self.batch_number = batch_idx
        checks.labels(label, self.num_classes, batch_idx)
        if self.augment is not None:
            image = self.augment(image)
        self._steps_now = (batch_idx + 1) % self.accumulate_grad_batches == 0 or self.trainer.is_last_batch
        with self._hold_reductions(), checks.fitting(image, self.network.input_shape):
            x, target = self.schedule.input(image, label, index) or self.inputs(image, label, index)
            result = self.sweep(x, target)
            if self.reads_out:
                self._learn_readout(image, label, result)
        if self._steps_now:
            self._step()
        if self.trainer.is_last_batch:
            # Not in on_train_epoch_end: a resumed run skips it after a checkpoint of the epoch's last batch, and under
            # max_steps it comes twice after a checkpoint of the epoch's end.
            self._step_schedulers("epoch")
        self._record(result, image, label)
        losses = [loss for name, loss in result.losses.items() if name != "readout"] or [*result.losses.values()]
        return {
            "loss": torch.stack(losses).sum(),
            "losses": result.losses,
            "goodness": result.goodness,
            "target": target,
        }

    def inputs(self, image: Tensor, label: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor | int]:
        """Input of the first block, and the target: positives stacked on negatives, or the images and labels."""
        if self.negatives is None:
            return self.network.normalize(image), label
        if index is None:
            index = configure.fallback_index(self, image)
        with torch.no_grad():
            positive = self.negatives.positives(image, label, self)
            negative = self.negatives(image, label, index, self)
            return self.network.normalize(torch.cat((positive, negative))), len(positive)

    def _step(self) -> None:
        """One tick of the trainer's counters; steps every optimizer that has learned and not stepped yet."""
        self.optimizers().step()  # type: ignore[union-attr]
        self.facade.zero_grad()
        self._step_schedulers("step")

    def _hold_reductions(self) -> AbstractContextManager[Any]:
        """Between optimizer steps, strategies that reduce gradients are told to wait."""
        hold = getattr(self.trainer.strategy, "block_backward_sync", None)
        return hold() if hold is not None and not self._steps_now else nullcontext()

    @property
    def reads_out(self) -> bool:
        """Whether the readout has parameters and learns beside the blocks."""
        return "readout" in self.facade.inner

    @property
    def _reads_sweep(self) -> bool:
        return self.reads_out and (self.network.mode == "class" or self.network.readout.view == "positive")

    # Optimizers and schedulers

    @override
    def configure_optimizers(self) -> Any:
        self.facade = configure.optimizers(self)
        schedulers = configure.schedulers(self, self.facade)
        if schedulers is None:
            return {"optimizer": self.facade}
        interval = self.scheduler_interval
        return {"optimizer": self.facade, "lr_scheduler": {"scheduler": schedulers, "interval": interval}}

    def _step_schedulers(self, interval: str, metrics: Mapping[str, Tensor] | None = None) -> None:
        """Step the schedulers of this interval; with metrics, those that wait for a plateau."""
        for config in self.trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            plateau = isinstance(scheduler, BlockSchedulers) and scheduler.on_plateau
            if plateau and metrics is not None:
                scheduler.step(configure.monitored(self, metrics), self._learners())
            elif not plateau and metrics is None and config.interval == interval:
                scheduler.step(*([None, self._learners()] if isinstance(scheduler, BlockSchedulers) else []))

    def _learners(self) -> list[str]:
        """Names of the optimizers that learn now: a scheduler counts only its own block's epochs and steps."""
        segments = [s for s in self.segments if self.schedule.learns(s)]
        return [name for s in segments for name in self._owners(s)] + ["readout"] * self.reads_out

    @override
    def on_validation_epoch_end(self) -> None:
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
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
        """Nothing: gradients that are being accumulated survive a validation in between."""


def _nothing() -> None:
    """The closure of a step whose gradients are there already."""
