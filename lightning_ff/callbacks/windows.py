"""The schedule in which blocks learn in windows of epochs, with outputs of frozen blocks kept."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from typing_extensions import override

from lightning_ff.blocks.local_block import Activation
from lightning_ff.callbacks.cache import OutputCache
from lightning_ff.learner import LocalLearner
from lightning_ff.sweep import Schedule, Segment
from lightning_ff.validate import check_ints, check_type

Window = tuple[int, int]


class Windows(Schedule):
    """The schedule that these callbacks install.

    Args:
        learner: Whose blocks they are.
        windows: Windows of epochs of every block.
        cache: Keep outputs of frozen blocks: True, False, or None where they can be kept.
        memory: Bound in MiB on what is kept in memory.
    """

    def __init__(self, learner: LocalLearner, windows: list[list[Window]], cache: bool | None, memory: float) -> None:
        self.learner = learner
        self.windows = windows
        self.cache = cache
        self.memory = memory
        self._kept: tuple[Any, OutputCache] | None = None
        self._earlier: tuple[Any, OutputCache] | None = None

    def learns_in(self, k: int, epoch: int) -> bool:
        """Whether a block learns in an epoch."""
        return any(first <= epoch < end for first, end in self.windows[k])

    def learning(self, epoch: int) -> list[int]:
        """Places of the blocks that learn in an epoch."""
        return [k for k in range(len(self.windows)) if self.learns_in(k, epoch)]

    @override
    def learns(self, segment: Segment) -> bool:
        return self.learns_in(segment.index, self.learner.current_epoch)

    @override
    def epochs(self, segment: Segment) -> int:
        return sum(end - first for first, end in self.windows[segment.index])

    def why_not(self) -> str | None:
        """Why outputs of frozen blocks cannot be kept; None where they can."""
        learner = self.learner
        if isinstance(learner.trainer.strategy, (FSDPStrategy, ModelParallelStrategy)):
            return "every process has a share of a block's weights, so that none can leave the block out on its own"
        if learner.augment is not None:
            return f"augment={learner.augment} changes the images"
        if learner.negatives is not None and learner.negatives.version is None:
            return f"negatives={learner.negatives} are other ones in every epoch, and those of FixedPool stay"
        if learner.network.readout.needs == "features" and learner.network.mode == "class":
            return f"readout={learner.network.readout} learns from the features of all blocks"
        if learner.network.readout.needs == "features" and learner.network.readout.view == "positive":
            return f"readout={learner.network.readout} learns from the features of all blocks: use view='neutral'"
        return None

    def describe(self) -> str:
        """Where the first block that learns gets its input from."""
        if not self._first():
            return "the data"
        return "frozen blocks" if self.cache is False or self.why_not() else "kept outputs of frozen blocks"

    def _first(self) -> int:
        """Place of the first block that learns, 0 where none does."""
        return next(iter(self.learning(self.learner.current_epoch)), 0)

    @override
    def start(self) -> int:
        return self._first() if self.cache is not False and self.why_not() is None else 0

    @override
    def input(self, image: Tensor, label: Tensor, index: Tensor | None) -> tuple[Activation, Tensor | int] | None:
        first = self.start()
        if not first:
            return None
        if index is None:
            if self.cache:
                raise ValueError("cache=True keeps outputs by the samples' index, which these batches lack: give one")
            return self._through(first, *self.learner.inputs(image, label, index))
        groups, kept = len(label), self._cache(first, image)
        if (rows := kept.get(index)) is not None:
            return _unstack(rows), label if self.learner.negatives is None else groups
        x, target = self._computed(first, image, label, index)
        kept.put(index, _stack(x, groups))
        return x, target

    def _computed(self, first: int, image: Tensor, label: Tensor, index: Tensor) -> tuple[Activation, Tensor | int]:
        """Input of a block: from what was kept for the one before, or else from the data."""
        if self._earlier is not None and (rows := self._earlier[1].get(index)) is not None:
            target: Tensor | int = label if self.learner.negatives is None else len(label)
            return self._through(first, _unstack(rows), target, begin=self._earlier[0][0])
        return self._through(first, *self.learner.inputs(image, label, index))

    @torch.no_grad()
    def _through(
        self, first: int, x: Activation, target: Tensor | int, begin: int = 0
    ) -> tuple[Activation, Tensor | int]:
        for block in self.learner.blocks[begin:first]:
            block.eval()
            x = block.hand_over(block(x, measure=False)[0])
        return x, target

    def _cache(self, first: int, image: Tensor) -> OutputCache:
        """What is kept for a block, begun anew when a block before it has learned or negatives have changed."""
        sampler = self.learner.negatives
        tag = (first, self._changed(first), None if sampler is None else sampler.version)
        if self._kept is None or self._kept[0] != tag:
            if self._earlier is not None:
                self._earlier[1].close()
            self._earlier, self._kept = self._kept, None
            if self._earlier is not None and not self._continues(self._earlier[0], tag):
                self._earlier[1].close()
                self._earlier = None
            batches = self.learner.trainer.num_training_batches
            room = len(image) * (int(batches) if isfinite(batches) else 1)
            self._kept = (tag, OutputCache(room, self.memory))
        return self._kept[1]

    def _continues(self, old: Any, new: Any) -> bool:
        """Whether what was kept for an earlier block is still what it would be."""
        first, since, version = old
        return first < new[0] and version == new[2] and self._changed(first) == since

    def _changed(self, first: int) -> int:
        """Epoch since which the blocks before a block are as they are."""
        ends = (end for of_block in self.windows[:first] for _, end in of_block)
        return max((end for end in ends if end <= self.learner.current_epoch), default=0)

    def close(self) -> None:
        """Free what is kept."""
        for entry in (self._kept, self._earlier):
            if entry is not None:
                entry[1].close()
        self._kept = self._earlier = None


def _stack(x: Activation, samples: int) -> Activation:
    """Rows by sample `(N, G, ...)` of G groups of N rows."""
    if not isinstance(x, Tensor):
        return tuple(_stack(entry, samples) for entry in x)  # type: ignore[misc]
    return x.view(-1, samples, *x.shape[1:]).transpose(0, 1)


def _unstack(rows: Activation) -> Activation:
    if not isinstance(rows, Tensor):
        return tuple(_unstack(entry) for entry in rows)  # type: ignore[misc]
    return rows.transpose(0, 1).flatten(0, 1)


def checked_windows(windows: Any) -> list[list[Window]]:
    """Windows by block as `(first epoch, end)`.

    Raises:
        ValueError: they are empty or overlap, or no block has one.
        TypeError: they are no lists of pairs of whole numbers.
    """
    check_type("windows", windows, Sequence, "give a list of windows for each block, such as [[(0, 5)], [(5, 10)]]")
    checked: list[list[Window]] = []
    for k, of_block in enumerate(windows):
        check_type(f"windows[{k}]", of_block, Sequence, "give a list of windows, such as [(0, 5)]")
        done: list[Window] = []
        for window in of_block:
            check_ints(f"windows[{k}]", window, "give windows as two epochs, such as [(0, 5)]")
            if len(window) != 2 or not (done[-1][1] if done else 0) <= window[0] < window[1]:
                raise ValueError(
                    f"windows[{k}]={list(of_block)}: give (first epoch, end) with end after first, one after another"
                )
            done.append((int(window[0]), int(window[1])))
        checked.append(done)
    if not any(checked):
        raise ValueError(f"windows={list(windows)}: let at least one block learn")
    return checked
