"""Segmentation: which blocks share a loss and a backward, and the loss of each of these segments.

Shapes: P positives, M negatives, N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ff.blocks.local_block import LocalBlock
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import LocalLoss
from lightning_ff.segment import Segment
from lightning_ff.sweep.modes import Segments, check_segments
from lightning_ff.target import Target

JointLoss = Callable[[Sequence[LocalBlock], Sequence[Tensor | None], Target], Tensor | None]


class Segmentation:
    """The segments of a network, which may differ from batch to batch.

    Args:
        network: The network.
        segments: See :class:`~lightning_ff.Sweep`.
        one_loss: Only the last block needs an objective, since the others get their gradients from it.

    Attributes:
        every: All segments.
        fixed: Whether all batches have the same segments.
        whole: Whether one segment is the whole network, by one of the named objectives.

    Raises:
        ValueError: `segments` is not one of its choices or does not fit the blocks, or a block lacks an objective.
        TypeError: `segments` is neither a name, an integer nor a list of integers.
    """

    def __init__(self, network: LocalNetwork, segments: Segments, one_loss: bool = False) -> None:
        check_segments(segments, len(network.blocks))
        self.whole = segments in ("sum_of_losses", "loss_of_sum", "last")
        self._one_loss = one_loss
        self._sums = segments in ("sum_of_losses", "loss_of_sum")
        self._own_optimizers = not isinstance(segments, str)
        self._phases: list[list[Segment]] = []
        for sizes in _sizes(segments, len(network.blocks)):
            counted = sum(map(len, self._phases))
            ranges = [tuple(range(start, end)) for start, end in pairwise([0, *accumulate(sizes)])]
            names = ["network" if self.whole else _name(network.names, blocks) for blocks in ranges]
            self._phases.append([Segment(counted + i, *each) for i, each in enumerate(zip(ranges, names, strict=True))])
        self.every = [segment for phase in self._phases for segment in phase]
        self.fixed = len(self._phases) == 1
        _check_objectives(network, segments, self.every, one_loss)

    def of(self, batch: int) -> list[Segment]:
        """Segments of the batch with this index."""
        return self._phases[batch % len(self._phases)]

    def unused(self, network: LocalNetwork) -> list[set[int]]:
        """Identities of the parameters that no loss uses, for every phase of the batches."""
        if self._sums:
            return [set()]
        inner = [[network.stack[k] for s in phase for k in s.blocks[:-1]] for phase in self._phases]
        if self._one_loss:
            inner = [network.stack[:-1]]
        parts = [
            [part for block in phase for part in (block.goodness, block.loss) if part is not None] for phase in inner
        ]
        return [{id(p) for part in phase for p in part.parameters()} for phase in parts]

    def owners(self, network: LocalNetwork) -> dict[str, nn.Module]:
        """Modules with their own optimizer by name: every block, or every segment of a list, and the readout."""
        if not self._own_optimizers:
            return network.owners
        blocks = {segment.name: [network.blocks[k] for k in segment.blocks] for segment in self.every}
        owners = {name: each[0] if len(each) == 1 else nn.ModuleList(each) for name, each in blocks.items()}
        return {**owners, "readout": network.readout}


def _sizes(segments: Any, count: int) -> list[list[int]]:
    """Numbers of consecutive blocks in each segment, for every phase of the batches."""
    if segments == "local":
        return [[1] * count]
    if segments == "overlapping":
        pairs = [[2] * (count // 2) + [1] * (count % 2), [1] + [2] * ((count - 1) // 2) + [1] * ((count - 1) % 2)]
        return pairs if count > 1 else [[1]]
    if isinstance(segments, str):
        return [[count]]
    if isinstance(segments, Sequence):
        return [list(segments)]
    return [[count // segments + (i < count % segments) for i in range(segments)]]


def _name(names: Sequence[str], blocks: Sequence[int]) -> str:
    """Name of a block, or of consecutive ones."""
    first, last = names[blocks[0]], names[blocks[-1]]
    return first if first == last else f"{first}-{last.removeprefix('block')}"


def last_blocks(segments: Any, count: int) -> set[int]:
    """Indices of the blocks whose goodness is used with these segments, of N blocks.

    Raises:
        ValueError: `segments` does not fit the blocks.
        TypeError: `segments` is neither a name, an integer nor a list of integers.
    """
    check_segments(segments, count)
    if isinstance(segments, str):
        return {count - 1} if segments == "last" else set(range(count))
    (sizes,) = _sizes(segments, count)
    return {end - 1 for end in accumulate(sizes)}


def make_segments(network: LocalNetwork, segments: Segments) -> list[Segment]:
    """All segments of a network, see :class:`~lightning_ff.sweep.Segmentation`."""
    return Segmentation(network, segments).every


def make_loss(network: LocalNetwork, segments: Segments, one_loss: bool = False) -> JointLoss:
    """Loss function of a segment: maps blocks, their goodness and the target to a scalar, or None without a loss.

    With `one_loss`, only the last block of the network has one.
    """
    if one_loss:
        last = network.stack[-1]
        return lambda blocks, goodness, target: _last_loss(blocks, goodness, target) if blocks[-1] is last else None
    if segments == "loss_of_sum":
        return _loss_of_sum(network)
    return _sum_of_losses if segments == "sum_of_losses" else _last_loss


def add(values: Iterable[Tensor]) -> Tensor | None:
    """Sum of scalars, in order; None if there are none."""
    listed = list(values)
    return sum(listed[1:], listed[0]) if listed else None


def _sum_of_losses(blocks: Sequence[LocalBlock], goodness: Sequence[Tensor | None], target: Target) -> Tensor | None:
    losses = [block.own_loss(g, target) for block, g in zip(blocks, goodness, strict=True)]
    return add(loss for loss in losses if loss is not None)


def _last_loss(blocks: Sequence[LocalBlock], goodness: Sequence[Tensor | None], target: Target) -> Tensor | None:
    return blocks[-1].own_loss(goodness[-1], target)


def _loss_of_sum(network: LocalNetwork) -> JointLoss:
    """The last block's loss for the goodness summed over all blocks, with a threshold for the sum."""
    last = network.stack[-1].loss
    assert last is not None
    loss: LocalLoss = copy(last)  # shares parameters, but has its own threshold
    if network.mode == "pair":
        measuring = [(b, s[0]) for b, s in zip(network.stack, network.shapes, strict=True) if b.goodness is not None]
        loss.bind(sum(block.unit(shape) for block, shape in measuring))

    def joint(blocks: Sequence[LocalBlock], goodness: Sequence[Tensor | None], target: Target) -> Tensor:
        scores = [block.scores(g) for block, g in zip(blocks, goodness, strict=True) if g is not None]
        return loss(torch.stack(scores).sum(0), target)

    return joint


def _check_objectives(network: LocalNetwork, segments: Segments, every: Sequence[Segment], one_loss: bool) -> None:
    """Check that every block whose objective is used has one."""
    last = len(network.blocks) - 1
    trainable = [block.trainable for block in network.stack]
    if segments in ("sum_of_losses", "loss_of_sum"):
        needed = {k for k, learns in enumerate(trainable) if learns}
    else:
        needed = {s.blocks[-1] for s in every if not one_loss and any(trainable[k] for k in s.blocks)}
    for k in sorted({*needed, last}):
        block = network.stack[k]
        from_terms = block.goodness is None and block.loss is None and len(block.terms) and segments != "loss_of_sum"
        if from_terms or block.fitted or (block.goodness is not None and block.loss is not None):
            continue
        missing = "goodness" if block.goodness is None else "loss"
        instead = "" if segments == "loss_of_sum" else ", or terms alone"
        raise ValueError(
            f"{network.names[k]} has {missing}=None, which segments={segments!r} needs: give the block one{instead}"
        )
