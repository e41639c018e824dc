"""What the learning loop asks of others: which segments learn, which are here, where inputs come from.

The loop in `learner.py` works with any :class:`Schedule` and any :class:`Placement`; the defaults are one process in
which every block learns from every batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from torch import Tensor

from lightning_ff.blocks.local_block import Activation


@dataclass(frozen=True)
class Segment:
    """Consecutive blocks with one loss and one backward.

    Attributes:
        index: Place among the segments.
        blocks: Places of its blocks in the network.
        name: The block's name for a segment of one block, else "network".
    """

    index: int
    blocks: tuple[int, ...]
    name: str


@dataclass
class SweepResult:
    """What a sweep leaves behind, all but `pending` detached.

    Attributes:
        losses: Loss of every segment that learned, and of the readout, by name.
        goodness: Goodness of every block that measured it, by name: `(P + M,)` or `(N, C)`.
        features: What the blocks handed on, where a readout learns from it.
        pending: Losses that wait for one backward on their sum, with the names of whose they are.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    goodness: dict[str, Tensor] = field(default_factory=dict)
    features: list[Tensor] = field(default_factory=list)
    pending: dict[Tensor, list[str]] = field(default_factory=dict)


class Schedule:
    """Which segments learn now; this one: all of them, from the first on."""

    def start(self) -> int:
        """Place of the first segment that runs."""
        return 0

    def learns(self, segment: Segment) -> bool:
        """Whether a segment learns from this batch."""
        return True

    def epochs(self, segment: Segment) -> int | None:
        """Number of epochs in which a segment learns, which its scheduler decays over; None: all."""
        return None

    def input(self, image: Tensor, label: Tensor, index: Tensor | None) -> tuple[Activation, Tensor | int] | None:
        """Input and target of the first segment that runs, computed before; None where `start()` is 0."""
        return None


class Arrived(NamedTuple):
    """What the process before has sent of a batch.

    Attributes:
        x: Input of this process's first block.
        target: Number of positives (pair mode) or labels `(N,)` (class mode).
        features: What the blocks so far handed on, where a readout learns from it.
    """

    x: Activation
    target: Tensor | int
    features: list[Tensor]


class Placement:
    """Which blocks are in this process and what travels; a strategy puts its own into the network.

    This one: all blocks are here, and nothing travels.
    """

    def owns(self, segment: Segment) -> bool:
        """Whether a segment runs in this process."""
        return True

    def take(self, label: Tensor) -> Arrived | None:
        """What a training batch with these labels begins with here; None: with the batch itself."""
        return None

    def send(self, x: Activation, target: Tensor | int, features: list[Tensor]) -> None:
        """Output of this process's last block, for the next process."""

    @property
    def complete(self) -> bool:
        """Whether all blocks are in this process."""
        return True

    @property
    def sends(self) -> bool:
        """Whether the last output is wanted at all."""
        return False

    @property
    def reads(self) -> bool:
        """Whether the readout learns here."""
        return True

    def gather(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values by block of all processes, from those of this one's blocks; asked for at log intervals."""
        return values

    def same(self, label: Tensor) -> None:
        """Note, in an evaluation, whether this process reads the samples with labels `(N,)` that the others read."""

    def agree(self) -> None:
        """Stop the run where one process has read other samples; called where processes meet.

        Raises:
            ValueError: it has.
        """

    def meet(self) -> None:
        """Called at log intervals, where processes exchange values anyway."""

    def end_batch(self, trainer: Trainer) -> None:
        """Called when a training batch has ended, before the trainer looks whether it shall stop."""

    def mine(self, blocks: int) -> range:
        """Places of this process's blocks, of so many."""
        return range(blocks)

    def enter(self, x: Activation) -> Activation:
        """Input of this process's first block in a pass without learning, given the batch's."""
        return x

    def leave(self, x: Activation) -> None:
        """Output of this process's last block in such a pass."""

    def collect(self, outputs: list[Tensor]) -> list[Tensor] | None:
        """Outputs of all blocks, from those of this process's; None where another process has them."""
        return outputs

    def share(self, answer: Tensor | dict[str, Tensor] | None) -> Any:
        """An answer that one process has, for all."""
        return answer
