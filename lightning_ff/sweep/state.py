"""Start, state and results of a sweep.

Shapes: N samples, P positives, M negatives, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from lightning_ff.blocks.local_block import Activation
from lightning_ff.target import Pairs, Target


class Start(NamedTuple):
    """Start of a sweep.

    Attributes:
        x: Input of a block, encoded and normalised.
        target: Positives or labels.
        block: Index of that block.
        features: Normalised outputs of the blocks before it, if a readout learns from the sweep.
    """

    x: Activation
    target: Target
    block: int = 0
    features: Sequence[Tensor] = ()


@dataclass
class SweepResult:
    """Detached results of a sweep.

    Attributes:
        losses: Loss of every segment that learned, and of the readout, by name.
        goodness: Goodness of every block that measured it, by name: `(P + M,)` or `(N, C)`.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    goodness: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class BatchState:
    """State of a batch in a sweep; `pending` are the losses for one backward on their sum, with their optimizers."""

    x: Activation
    target: Target
    image: Tensor | None
    label: Tensor | None
    index: Tensor | None
    features: list[Tensor]
    updates: bool
    result: SweepResult = field(default_factory=SweepResult)
    pending: dict[Tensor, list[str]] = field(default_factory=dict)

    @property
    def positives(self) -> int | None:
        return self.target.positives if isinstance(self.target, Pairs) else None
