"""Base of credit assignment."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn
from typing_extensions import override

from lightning_ff.blocks.local_block import Activation, first
from lightning_ff.network import LocalNetwork
from lightning_ff.segment import Segment
from lightning_ff.target import Target

Forward = Callable[[], tuple[Tensor | None, Activation]]


class Run(NamedTuple):
    """Results of the run of a segment that learns.

    Attributes:
        loss: Its loss, which is logged; None if it has none.
        surrogate: The scalar whose gradient the segment learns from; None to learn nothing.
        h: Output of its last block.
    """

    loss: Tensor | None
    surrogate: Tensor | None
    h: Activation


class Credit(nn.Module):
    """Where the gradient of a segment comes from; this one: autograd within the segment, from its own loss.

    A subclass overrides what differs. Buffers and parameters are saved in checkpoints.

    Attributes:
        local: Whether a segment learns without the others. Otherwise all blocks are in one process, all segments learn
            in every batch and are single blocks that hand on one tensor, and only the last block's loss is used.
    """

    local: bool = True

    def check(self, network: LocalNetwork) -> None:
        """Raise for a network that the credit cannot teach; called at set-up."""

    def prepare(self, network: LocalNetwork, x: Activation, target: Target) -> None:
        """Called without gradients before a sweep if not `local`; blocks are in the mode of the sweep.

        Args:
            network: The network.
            x: The first block's input.
            target: What the batch is learned from.
        """

    def input(self, block: int, x: Activation) -> Activation:
        """Input of the block with this index, the first of its segment, in place of the output of the one before."""
        return x

    def run(self, segment: Segment, forward: Forward) -> Run:
        """Run a segment that learns.

        Args:
            segment: The segment.
            forward: Runs its blocks, with gradients enabled; returns its loss (None if it has none) and its output.
        """
        loss, h = forward()
        return Run(loss, loss, h)

    def values(self) -> dict[str, Tensor]:
        """Scalars of the last batch by name, which a learner logs under `relaxation/`."""
        return {}


class SignalCredit(Credit):
    """Base of credits in which every block but the last learns from `<h_k, s_k>`, with a signal s_k of h_k's shape.

    `prepare` computes the signals; `signal` hands them out.
    """

    local = False

    def __init__(self) -> None:
        super().__init__()
        self._signals: dict[int, Tensor] = {}

    def signal(self, block: int, h: Tensor) -> Tensor | None:
        """Signal of a block with output h; None for the last block, which learns from its own loss."""
        return self._signals.pop(block, None)

    @override
    def run(self, segment: Segment, forward: Forward) -> Run:
        loss, h = forward()
        signal = self.signal(segment.blocks[-1], first(h))
        if signal is None:
            return Run(loss, loss, h)
        surrogate = (first(h) * signal).sum()
        return Run(loss, surrogate if loss is None else surrogate + loss, h)


def check_last_loss(credit: Credit, network: LocalNetwork) -> None:
    """Check that the last block has a loss of its own.

    Raises:
        ValueError: it has none.
    """
    last = network.stack[-1]
    if last.goodness is None or last.loss is None:
        raise ValueError(
            f"credit={credit} learns from the loss of the last block, and {network.names[-1]} has none: give it a "
            "goodness and a loss, or leave the credit out"
        )
