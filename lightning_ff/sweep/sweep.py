"""Sweep: the training loop. Each segment learns from its own loss, with no gradient between segments.

Shapes: N samples, P positives, M negatives, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_ff.blocks.local_block import Activation, LocalBlock, detach, first
from lightning_ff.credit import Credit
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import Goodness
from lightning_ff.optim import BlockOptimizers
from lightning_ff.segment import Segment
from lightning_ff.sweep.checks import check_credit, check_owners, check_schedule
from lightning_ff.sweep.modes import Backward, Segments, Step, check_modes
from lightning_ff.sweep.schedule import Schedule
from lightning_ff.sweep.segments import Segmentation, add, make_loss
from lightning_ff.sweep.state import BatchState, Start, SweepResult
from lightning_ff.sweep.store import KeptOutputs, marks_of
from lightning_ff.target import Labels, Pairs, Target, rows
from lightning_ff.validate import check_type

BackwardFn = Callable[[Tensor, list[str]], object]
StepFn = Callable[[list[str]], object]


class Sweep:
    """Train a network on a batch: forward, loss, backward and step of each segment in turn.

    Args:
        network: The network; `network.stage` has the blocks of this process.
        optimizers: One optimizer per block, made from `network.owners`; for a list or number of segments one per
            segment, made from `Segmentation(network, segments).owners(network)`.
        segments: What is differentiated, see :class:`~lightning_ff.LocalLearner`.
        schedule: Which segments learn in which epoch; None is all in every epoch.
        store: Keeps outputs of frozen blocks; None computes them again for every batch.
        backward_fn: Called with a loss and the names of the optimizers whose gradients to compute; None is
            `loss.backward()`.
        step_fn: Called with the names of the optimizers that have gradients, at the end of a batch even if there are
            none (step="batch"); None steps them.
        backward: "per_block" frees each segment's graph before the next is built; "summed" runs one backward on the
            sum of the losses: equal weights, more memory.
        step: "batch" steps once after the sweep; "block" steps each block right after its backward.
        refresh_output: Run a block again after its step, so that the next one gets the output of the new weights.
        credit: Where the gradients of a segment come from; None is autograd within it.

    Attributes:
        epoch: Current epoch, for the schedule; set it before the first batch of an epoch.
        batch: Index of the batch in its epoch, for segments that depend on it; set it before the batch.
        version: Number that changes when a sample's inputs change; None if they change every epoch, so that nothing is
            kept.

    Raises:
        ValueError: an argument is not one of its choices, or two do not fit.
        TypeError: `optimizers` is not a :class:`~lightning_ff.BlockOptimizers`.

    Example::

        >>> from functools import partial
        >>> from lightning_ff import ForwardForward, Pairs
        >>> from lightning_ff.optim import make_optimizers
        >>> network = ForwardForward(num_classes=2, input_shape=(4,), widths=[8, 8]).network
        >>> sweep = Sweep(network, make_optimizers(network.owners, partial(torch.optim.SGD, lr=0.1)))
        >>> sorted(sweep(torch.rand(6, 4), Pairs(3)).losses)
        ['block00', 'block01']
    """

    def __init__(
        self,
        network: LocalNetwork,
        optimizers: BlockOptimizers,
        segments: Segments = "local",
        schedule: Schedule | None = None,
        store: KeptOutputs | None = None,
        backward_fn: BackwardFn | None = None,
        step_fn: StepFn | None = None,
        backward: Backward = "per_block",
        step: Step = "batch",
        refresh_output: bool = False,
        credit: Credit | None = None,
    ) -> None:
        check_modes(segments, backward, step, refresh_output)
        check_type("network", network, LocalNetwork, "give a LocalNetwork, such as learner.network")
        self.credit = Credit() if credit is None else credit
        check_credit(self.credit, network, segments, schedule, refresh_output)
        self.segmentation = Segmentation(network, segments, not self.credit.local)
        check_owners(network, self.segmentation, optimizers)
        check_schedule(schedule, store, self.segmentation)
        self.network = network
        self.optimizers = optimizers
        self.loss = make_loss(network, segments, not self.credit.local)
        self._blocks = network.stack
        self._parameters = {name: optimizers.parameters(name) for name in optimizers.by_block}
        self._optimizer_of = {k: optimizers.owner(block) for k, block in enumerate(network.stack)}
        self._names = [self._names_of(segment.blocks) for segment in self.segments]
        self._fitted = {k for k, block in enumerate(network.stack) if block.fitted}
        self._unused = self.segmentation.unused(network)
        default = Schedule() if store is None else store.windows
        self.schedule = default if schedule is None else schedule
        self.store = store
        self.backward_fn = _backward if backward_fn is None else backward_fn
        self.step_fn = self._step if step_fn is None else step_fn
        self.backward_mode = backward
        self.step_mode = step
        self.refresh_output = refresh_output
        self.epoch = 0
        self.batch = 0
        self.version: int | None = 0
        self._unstepped: dict[str, None] = {}  # optimizers with gradients, over the batches of one step

    def __call__(
        self,
        x: Activation,
        target: Target,
        image: Tensor | None = None,
        label: Tensor | None = None,
        index: Tensor | None = None,
        block: int = 0,
        features: Sequence[Tensor] = (),
        update: bool = True,
    ) -> SweepResult:
        """Learn from a batch.

        Args:
            x: Input of the first block, encoded and normalised, or of the block with index `block`.
            target: `Pairs(P)` for inputs `(P + M, ...)`, or `Labels(label)` for inputs `(N, ...)`.
            image: Plain inputs `(N, ...)`; a readout that learns from the neutral view needs them.
            label: Classes `(N,)`; a readout that learns needs them.
            index: Indices of the samples in the data set `(N,)`, needed to keep outputs.
            block: Index of the block that `x` is the input of.
            features: Normalised outputs of the blocks before it, if a readout learns from the sweep.
            update: Step the optimizers; without it gradients accumulate.

        Returns:
            Detached losses and goodness.
        """
        self._check(x, target, block)
        batch = BatchState(x, target, image, label, index, [*features], update)
        route, needs_output = self._route(block)
        if not self.credit.local:
            self._prepare(route, batch)
        for segment, learns in route:
            if block < segment.blocks[0]:
                self._keep(segment, batch)
            batch.x = self.credit.input(segment.blocks[0], batch.x)
            h = self._run_segment(segment, learns, batch)
            if needs_output or segment is not route[-1][0]:
                self._set_next_input(segment, h, learns, batch)
        if not self.network.stage.is_last:
            self.network.stage.send_forward(batch.x, target, batch.features, label)
        if self.reads_out:
            self._learn_readout(batch)
        self._finish(batch)
        return batch.result

    def _check(self, x: Activation, target: Target, block: int) -> None:
        """Check the target of a batch against its input, and the index of the first block."""
        wanted = Pairs if self.network.mode == "pair" else Labels
        if not isinstance(target, wanted):
            raise TypeError(f"target={target!r}: {self.network.mode} mode learns from {wanted.__name__}")
        n = len(first(x))
        if isinstance(target, Pairs) and not 0 < target.positives < n:
            raise ValueError(f"target={target} for {n} rows: give at least one positive and one negative")
        if isinstance(target, Labels) and len(target.label) != n:
            raise ValueError(f"target has {len(target.label)} labels for {n} rows: give one for each")
        if not 0 <= block < len(self.network.blocks):
            raise ValueError(f"block={block}: there are {len(self.network.blocks)} blocks")

    def start(self, label: Tensor, index: Tensor | None, image: Tensor | None = None) -> Start | None:
        """Start from a message of the stage before, or from kept outputs; None to start from the data.

        With the images, a kept output of another sample with the same index is noticed.
        """
        stage = self.network.stage
        if not stage.is_first:
            received = stage.recv_forward(label)
            assert received.target is not None
            return Start(received.x, received.target, features=received.features)
        if self.store is None or index is None or self.version is None:
            return None
        if (found := self.store.get(index, self.epoch, self.version, marks_of(image, label))) is None:
            return None
        segment, x = found
        target = Labels(label) if self.network.mode == "class" else Pairs(len(label))
        return Start(x, target, self.segments[segment].blocks[0])

    @property
    def segments(self) -> list[Segment]:
        """All segments; those of a batch are `segmentation.of(batch)`."""
        return self.segmentation.every

    @property
    def unused(self) -> set[int]:
        """Identities of the parameters that no loss of this batch uses: goodness of blocks within a segment."""
        return self._unused[self.batch % len(self._unused)]

    def learns(self, segment: Segment) -> bool:
        """Whether a segment learns in this epoch, by gradients or by a fit."""
        if not self.schedule.learns(segment, self.epoch):
            return False
        return self._descends(segment) or not self._fitted.isdisjoint(segment.blocks)

    def _descends(self, segment: Segment) -> bool:
        """Whether a segment has a weight that learns by gradients now: it may have been frozen during training."""
        return any(p.requires_grad for name in self.names(segment) for p in self._parameters[name])

    def names(self, segment: Segment) -> list[str]:
        """Names of the optimizers of a segment; blocks without trainable parameters have none."""
        return self._names[segment.index]

    def _names_of(self, blocks: Sequence[int]) -> list[str]:
        owners = (self._optimizer_of[k] for k in blocks)
        return list(dict.fromkeys(name for name in owners if name is not None))

    def fit_parts(self, reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        """Fit each fitted goodness of the segments that learn, at the end of an epoch.

        Args:
            reduce: Sums a tensor over processes; None is one process.
        """
        for segment in self.segmentation.of(self.batch):
            if self.network.stage.owns(segment.blocks[0]) and self.schedule.learns(segment, self.epoch):
                for k in self._fitted.intersection(segment.blocks):
                    cast(Goodness, self._blocks[k].goodness).fit(_same if reduce is None else reduce)

    @property
    def reads_out(self) -> bool:
        """Whether the readout has parameters and learns together with the blocks."""
        return any(p.requires_grad for p in self._parameters.get("readout", ()))

    @property
    def _readout_uses_sweep(self) -> bool:
        """Whether the readout learns from the features of the sweep itself."""
        return self.reads_out and (self.network.mode == "class" or self.network.readout.view == "positive")

    def _route(self, block: int) -> tuple[list[tuple[Segment, bool]], bool]:
        """Segments to run in this process, with whether they learn; and whether the last output is needed."""
        stage = self.network.stage
        route = [
            (segment, self.learns(segment))
            for segment in self.segmentation.of(self.batch)
            if segment.blocks[0] >= block and stage.owns(segment.blocks[0])
        ]
        needs_output = self._readout_uses_sweep or not stage.is_last
        while route and not needs_output and not route[-1][1]:
            route.pop()
        return route, needs_output

    # A segment

    @torch.no_grad()
    def _prepare(self, route: Sequence[tuple[Segment, bool]], batch: BatchState) -> None:
        """Let the credit look at the batch, with all blocks in the mode of the sweep."""
        for segment, learns in route:
            for k in segment.blocks:
                self._set_mode(self._blocks[k], segment, k, learns)
        self.credit.prepare(self.network, batch.x, batch.target)

    def _run_segment(self, segment: Segment, learns: bool, batch: BatchState) -> Activation:
        """Forward, loss and backward of a segment; returns its output."""
        forward = partial(self._forward, segment, learns, batch)
        names = self.names(segment)
        if not (learns and self._descends(segment)):  # frozen, or fitted alone
            with torch.no_grad():
                loss, h = forward()
                surrogate = None
        else:
            with torch.enable_grad():
                loss, surrogate, h = self.credit.run(segment, forward)
        if loss is not None:
            batch.result.losses[segment.name] = loss.detach()
        if surrogate is not None:
            self._learn(surrogate, names, batch)
        return h

    def _forward(self, segment: Segment, learns: bool, batch: BatchState) -> tuple[Tensor | None, Activation]:
        """Run the blocks of a segment; returns its loss, if it learns and has one, and the last activation."""
        goodness: list[Tensor | None] = []
        terms: list[Tensor] = []
        for k in segment.blocks:
            block = self._blocks[k]
            self._set_mode(block, segment, k, learns)
            h, g = block(batch.x, positives=batch.positives, measure=learns)
            goodness.append(g)
            if g is not None:
                batch.result.goodness[self.network.names[k]] = block.scores(g.detach())
            if learns and k in self._fitted:
                block.observe(first(h), batch.target)
            if learns:
                terms += block.term_losses(first(batch.x), first(h), batch.target)
            if k != segment.blocks[-1]:
                batch.x = block.hand_over(h)
                self._collect(batch)
        if not learns:
            return None, h
        loss = self.loss([self._blocks[k] for k in segment.blocks], goodness, batch.target)
        return add(terms if loss is None else (loss, *terms)), h

    def _set_mode(self, block: LocalBlock, segment: Segment, k: int, learns: bool) -> None:
        """Set train mode for blocks that learn, and for blocks without weights in the epochs of their segment."""
        if self._optimizer_of[k] is not None:
            trains = learns
        else:
            trains = self.schedule.learns(segment, self.epoch) and next(block.parameters(), None) is None
        if block.training != trains or (not trains and block.in_train_mode):
            block.train(trains)

    @torch.no_grad()
    def _set_next_input(self, segment: Segment, h: Activation, learns: bool, batch: BatchState) -> None:
        """Set the input of the next segment to the detached output of this one."""
        block, h = self._blocks[segment.blocks[-1]], detach(h)
        if self.refresh_output and learns and batch.updates:
            h = block.refresh(batch.x, batch.positives)
        batch.x = block.hand_over(h)
        self._collect(batch)

    def _keep(self, segment: Segment, batch: BatchState) -> None:
        """Keep the input of the first segment that learns."""
        if self.store is None or batch.index is None or self.version is None:
            return
        if segment.index in self.store.windows.learning(self.epoch)[:1]:
            self.store.put(batch.index, batch.x, self.epoch, self.version, marks_of(batch.image, batch.label))

    def _collect(self, batch: BatchState) -> None:
        """Collect the normalised output of a block, if the readout learns from the sweep."""
        if self._readout_uses_sweep:
            batch.features.append(rows(first(batch.x).detach(), batch.target))

    # Learning

    def _learn(self, loss: Tensor, names: list[str], batch: BatchState) -> None:
        """Run the backward of a segment or readout, and its step if step="block"."""
        if self.backward_mode == "summed":
            batch.pending[loss] = names
            return
        self._run_backward(loss, names)
        if self.step_mode == "block" and batch.updates:
            self._update(names)

    def _run_backward(self, loss: Tensor, names: list[str]) -> None:
        self._unstepped.update(dict.fromkeys(names))
        self.backward_fn(loss, names)

    def _learn_readout(self, batch: BatchState) -> None:
        """Run the readout's backward on detached features of its view."""
        network = self.network
        features: list[Tensor] | None = batch.features
        if not self._readout_uses_sweep:
            if batch.image is None:
                raise ValueError("image=None: the readout learns from the neutral view, so give the sweep the images")
            with torch.no_grad(), network.evaluating():
                features = network.stage.gather_outputs(network.normalized_features(batch.image))
        if features is None or not network.stage.is_last:
            return
        if batch.label is None:
            raise ValueError("label=None: the readout learns from labels, so give them to the sweep")
        loss = F.cross_entropy(network.readout([h.detach() for h in features]).float(), batch.label)
        batch.result.losses["readout"] = loss.detach()
        self._learn(loss, ["readout"], batch)

    def _finish(self, batch: BatchState) -> None:
        """Run the backward on the sum of pending losses, and the step at the end of a batch."""
        if batch.pending:
            names = [name for of_loss in batch.pending.values() for name in of_loss]
            loss = torch.stack(list(batch.pending)).sum()
            batch.pending.clear()
            self._run_backward(loss, names)
        if batch.updates and (self._unstepped or self.step_mode == "batch"):
            self._update(list(self._unstepped))

    def _update(self, names: list[str]) -> None:
        """Step optimizers that have gradients, and zero these."""
        self.step_fn(names)
        self.optimizers.zero_grad(names=names)
        for name in names:
            self._unstepped.pop(name)

    def _step(self, names: list[str]) -> None:
        self.optimizers.step(names=names)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _backward(loss: Tensor, names: list[str]) -> None:
    loss.backward()
