"""LocalLearner: the one training loop. A method only chooses the parts it runs with.

Shapes: N samples, P positives, M negatives, C classes, K blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from lightning_ff import checks, configure
from lightning_ff.batch import unpack
from lightning_ff.blocks.local_block import Activation, LocalBlock, detach, first
from lightning_ff.labels import LabelEncoding
from lightning_ff.negatives import NegativeSampler
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import LocalLoss
from lightning_ff.readouts import Readout
from lightning_ff.spec import factory, part
from lightning_ff.stepping import Stepping
from lightning_ff.sweep import Placement, Schedule, Segment, SweepResult

Objective = Literal["local", "sum_of_losses", "loss_of_sum", "last"]


class LocalLearner(Stepping):
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
        refresh_output: Run a block again after its step, so that the next one gets the output of the new weights: one
            more forward pass. Needs step="block" and segments="local"; running statistics are left alone by it.
        optimizer: Factory of one optimizer per block, called with the block's parameters.
        scheduler: Factory of one learning-rate scheduler per optimizer.
        scheduler_interval: When schedulers step: after every "epoch" or every optimizer "step".
        scheduler_monitor: Metric for a scheduler that reacts to a plateau; such a one steps after validation. None is
            "val/loss".
        lr_decay: The rate of block k is multiplied by `lr_decay**k`: below 1, deeper blocks learn slower.
        block_optimizers: Other optimizer factories by name of the block ("block00", "readout"); wildcards are allowed.
        gradient_clip_val: Bound on the gradients of each block.
        gradient_clip_algorithm: The bound is on their "norm" or on each "value".
        accumulate_grad_batches: Batches per optimizer step; gradients are averaged.
        negatives: Negative sampler (pair mode); None chooses wrong labels, or hybrid images where no label is written.
        augment: Module applied to training images as a whole batch, on the device.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not what its annotation says.
    """

    def __init__(
        self,
        network: LocalNetwork,
        segments: Objective = "local",
        backward: Literal["per_block", "summed"] = "per_block",
        step: Literal["batch", "block"] = "batch",
        refresh_output: bool = False,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = Adam,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        scheduler_monitor: str | None = None,
        lr_decay: float = 1.0,
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
        checks.parts(network, negatives=part(negatives), augment=part(augment), block_optimizers=block_optimizers)
        self.automatic_optimization = False
        self.network = network
        self.segments = configure.segments(network, segments)
        self.objective: Objective = segments
        self.backward_mode = backward
        self.step_mode = step
        self.refresh_output = refresh_output
        self.optimizer = factory(optimizer)
        self.scheduler = factory(scheduler)
        self.scheduler_interval = scheduler_interval
        self.scheduler_monitor = scheduler_monitor
        self.lr_decay = lr_decay
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
        self.joint_loss = configure.joint_loss(network, segments)
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
        """Where the blocks are: in this process, all of them, unless a strategy has placed them."""
        return self.network.placement

    def exchange_readout(self, readout: Readout) -> None:
        """Join the blocks' answers in another way, after training too; one that learns begins untrained."""
        self.network.exchange_readout(readout)
        configure.remember_instead(self, "readout", readout)
        self._build_metrics()

    def deploy(self) -> nn.Module:
        """A plain module of the trained blocks, normalisation and readout, for torch.export, ONNX or your loop."""
        return self.network.deploy()

    # The sweep

    def sweep(self, x: Activation, target: Tensor | int, features: Sequence[Tensor] = ()) -> SweepResult:
        """Run the segments in order, each with its own loss and backward.

        Args:
            x: Input of the first segment that runs, already encoded and normalised.
            target: Number of positives (pair mode) or labels `(N,)` (class mode).
            features: What blocks in other processes handed on, where a readout learns from the sweep.

        Returns:
            Detached losses, goodness and, where a readout learns from the sweep, features; with backward="summed" also
            the losses that wait for the one backward.
        """
        placement, result = self.placement, SweepResult(features=[*features])
        running, onwards = self._route(placement)
        for segment, learns in running:
            with torch.set_grad_enabled(learns):
                loss, h = self._run_segment(segment, x, target, learns, result)
            if loss is not None:
                result.losses[segment.name] = loss.detach()
                self._learn(loss, self._owners(segment), result)
            if onwards or segment is not running[-1][0]:
                x = self._onwards(segment, x, detach(h), target if learns else None)
                self._collect(x, target, result)
        if placement.sends:
            placement.send(x, target, result.features)
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
        scheduled = self.schedule.learns(segment)
        for k in segment.blocks:
            block = self._block(k)
            name = self.network.names[k]
            trains = learns if name in self.facade.inner else scheduled and next(block.parameters(), None) is None
            if block.training != trains or (not trains and block.stirred):
                block.train(trains)
            h, g = block(x, positives=positives, measure=learns)
            if g is not None:
                result.goodness[name] = g.detach()
                goodness.append(g)
            if learns:
                terms += [term(first(x), first(h), target) for term in block.terms]
            if k != segment.blocks[-1]:
                x = block.hand_over(h)
                self._collect(x, target, result)
        return (self._loss(segment, goodness, target, terms) if learns else None), h

    @torch.no_grad()
    def _onwards(self, segment: Segment, x: Activation, h: Activation, target: Tensor | int | None) -> Activation:
        """What the segment after this one gets; the target is given where this one learns."""
        block = self._block(segment.blocks[-1])
        if self.refresh_output and target is not None and self._steps_now:
            h = block.refresh(x, target if isinstance(target, int) else None)
        return block.hand_over(h)

    def _loss(self, segment: Segment, goodness: list[Tensor], target: Tensor | int, terms: list[Tensor]) -> Tensor:
        """The segment's loss on its blocks' goodness, plus their terms."""
        measuring = [block for k in segment.blocks if (block := self._block(k)).goodness is not None]
        losses: list[LocalLoss] = [block.loss for block in measuring]  # type: ignore[misc]
        if self.joint_loss is not None:
            loss = self.joint_loss(torch.stack(goodness).sum(0), target)
        elif self.objective == "last":
            loss = losses[-1](goodness[-1], target)
        else:
            loss = sum(of_block(g, target) for of_block, g in zip(losses, goodness, strict=True))
        return sum(terms, loss)

    def _learn(self, loss: Tensor, names: list[str], result: SweepResult) -> None:
        """The backward of a segment or readout, and its step where blocks step on their own."""
        if self.backward_mode == "summed":
            result.pending[loss] = names
            return
        self._backward(loss, names)
        if self.step_mode == "block" and self._steps_now:
            for name in names:
                self._step_block(name)

    def _backward(self, loss: Tensor, names: list[str]) -> None:
        """Backward through the strategy, told whose gradients these are: one optimizer's, or the facade's."""
        share = self.accumulate_grad_batches
        owner = self.facade.inner[names[0]] if len(names) == 1 else self.facade
        self.facade.learned.update(dict.fromkeys(names))
        self.facade.latest = names
        self.trainer.strategy.backward(loss / share if share > 1 else loss, owner)

    def _learn_readout(self, image: Tensor, label: Tensor, result: SweepResult) -> None:
        """The readout's backward on detached features of its view."""
        features: list[Tensor] | None = result.features
        if not self._reads_sweep:
            with torch.no_grad(), self.evaluating():
                features = self.placement.collect(self.network.handed_over(image))
        if features is None or not self.placement.reads:
            return
        loss = F.cross_entropy(self.network.readout([h.detach() for h in features]).float(), label)
        result.losses["readout"] = loss.detach()
        self._learn(loss, ["readout"], result)

    def _collect(self, x: Activation, target: Tensor | int, result: SweepResult) -> None:
        """Keep what a block hands on, where the readout learns from the sweep."""
        if self._reads_sweep:
            h = first(x).detach()
            result.features.append(h[:target] if isinstance(target, int) else h)

    def _block(self, k: int) -> LocalBlock:
        return self.network.blocks[k]  # type: ignore[return-value]

    # One training step

    @override
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        image, label, index = unpack(batch)
        self.batch_number = batch_idx
        checks.labels(label, self.num_classes, batch_idx)
        self._steps_now = (batch_idx + 1) % self.accumulate_grad_batches == 0 or self.trainer.is_last_batch
        with self._hold_reductions(), checks.fitting(image, self):
            come = self.placement.take(label)
            if self.augment is not None and come is None:
                image = self.augment(image)
            begin = come or self.schedule.input(image, label, index) or self.inputs(image, label, index)
            result = self.sweep(*begin)
            if self.reads_out:
                self._learn_readout(image, label, result)
            if result.pending:
                names = [name for of_loss in result.pending.values() for name in of_loss]
                self._backward(torch.stack(list(result.pending)).sum(), names)
                result.pending.clear()
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
            "target": begin[1],
        }

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.placement.end_batch(self.trainer)

    def inputs(self, image: Tensor, label: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor | int]:
        """Input of the first block, and the target: positives stacked on negatives, or the images and labels."""
        if self.negatives is None:
            return self.network.normalize(image), label
        with torch.no_grad():
            positive, negative = configure.pairs(self, self.negatives, image, label, index)
            return self.network.normalize(torch.cat((positive, negative))), len(positive)

    @property
    def _reads_sweep(self) -> bool:
        return self.reads_out and (self.network.mode == "class" or self.network.readout.view == "positive")
