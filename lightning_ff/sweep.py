"""What the learning loop asks of others: which segments learn, which are here, where inputs come from.

The loop in `learner.py` works with any :class:`Schedule` and any :class:`Placement`; the defaults are one process in
which every block learns from every batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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


class Placement:
    """Which segments are in this process and how activations travel; a strategy offers its own as `placement`."""

    def owns(self, segment: Segment) -> bool:
        """Whether a segment runs in this process."""
        return True

    def receive(self, x: Activation) -> Activation:
        """Input of this process's first block, given the batch's."""
        return x

    def send(self, x: Activation) -> None:
        """Output of this process's last block."""

    @property
    def sends(self) -> bool:
        """Whether the last output is wanted at all."""
        return False
