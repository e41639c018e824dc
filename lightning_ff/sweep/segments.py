"""Segments: consecutive blocks with one loss and one backward.

Shapes: P positives, M negatives, N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_ff.blocks.local_block import LocalBlock
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import LocalLoss
from lightning_ff.sweep.modes import Objective, check_segments
from lightning_ff.target import Target

JointLoss = Callable[[Sequence[LocalBlock], Sequence[Tensor], Target], Tensor]


@dataclass(frozen=True)
class Segment:
    """Consecutive blocks with one loss and one backward.

    Attributes:
        index: Index among the segments.
        blocks: Indices of its blocks in the network.
        name: The block's name for a segment of one block, else "network".
    """

    index: int
    blocks: tuple[int, ...]
    name: str


def make_segments(network: LocalNetwork, objective: Objective) -> list[Segment]:
    """One segment per block for local learning, else one for the whole network.

    Raises:
        ValueError: there is no such objective.
    """
    if objective == "local":
        return [Segment(k, (k,), name) for k, name in enumerate(network.names)]
    check_segments(objective)
    return [Segment(0, tuple(range(len(network.blocks))), "network")]


def make_loss(network: LocalNetwork, objective: Objective) -> JointLoss:
    """Loss function of a segment: maps its blocks with a goodness, their goodness and the target to a scalar."""
    if objective == "loss_of_sum":
        return _loss_of_sum(network)
    return _last_loss if objective == "last" else _sum_of_losses


def own_loss(block: LocalBlock) -> LocalLoss:
    """The loss of a block that learns."""
    assert block.loss is not None
    return block.loss


def _sum_of_losses(blocks: Sequence[LocalBlock], goodness: Sequence[Tensor], target: Target) -> Tensor:
    losses = [own_loss(block)(g, target) for block, g in zip(blocks, goodness, strict=True)]
    return sum(losses[1:], losses[0])


def _last_loss(blocks: Sequence[LocalBlock], goodness: Sequence[Tensor], target: Target) -> Tensor:
    return own_loss(blocks[-1])(goodness[-1], target)


def _loss_of_sum(network: LocalNetwork) -> JointLoss:
    """The last block's loss for the goodness summed over all blocks, with a threshold for the sum."""
    loss = copy(own_loss(network.stack[-1]))  # shares parameters, but has its own threshold
    if network.mode == "pair":
        measuring = [(b, s[0]) for b, s in zip(network.stack, network.shapes, strict=True) if b.goodness is not None]
        loss.bind(sum(block.unit(shape) for block, shape in measuring))

    def joint(blocks: Sequence[LocalBlock], goodness: Sequence[Tensor], target: Target) -> Tensor:
        return loss(torch.stack(list(goodness)).sum(0), target)

    return joint


def check_objectives(network: LocalNetwork, segments: str) -> None:
    """Check that every block whose goodness and loss are computed has both."""
    for k, block in enumerate(network.stack):
        last = k == len(network.blocks) - 1
        if not (last or (block.trainable and segments != "last")):
            continue
        if block.goodness is None or block.loss is None:
            missing = "goodness" if block.goodness is None else "loss"
            raise ValueError(
                f"{network.names[k]} has {missing}=None, which segments={segments!r} needs: give the block one"
            )
