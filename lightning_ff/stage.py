"""Which blocks are in this process, and how activations are sent between processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lightning_ff.blocks.local_block import Activation
from lightning_ff.target import Target


class Received(NamedTuple):
    """A message of the stage before.

    Attributes:
        x: Input of this stage's first block.
        target: Positives or labels of a training batch; None in a pass without learning.
        features: Normalised outputs of the blocks before, where a readout learns from the sweep.
    """

    x: Activation
    target: Target | None = None
    features: Sequence[Tensor] = ()


class Stage:
    """Transport between the processes of a pipeline. This one is the default: one process with all blocks.

    A strategy sets its own as `network.stage`.
    """

    @property
    def is_first(self) -> bool:
        """Whether the first block is in this process."""
        return True

    @property
    def is_last(self) -> bool:
        """Whether the last block is in this process."""
        return True

    def owns(self, index: int) -> bool:
        """Whether the block of this index is in this process."""
        return True

    def recv_forward(self, label: Tensor | None = None) -> Received:
        """Receive from the stage before; `label` `(N,)` are the labels that this process has read in training."""
        raise RuntimeError(f"{type(self).__name__} holds all blocks: there is no stage before it to receive from")

    def send_forward(
        self,
        x: Activation,
        target: Target | None = None,
        features: Sequence[Tensor] = (),
        label: Tensor | None = None,
    ) -> None:
        """Send the output of this stage's last block to the next stage; the other arguments are for training."""
        raise RuntimeError(f"{type(self).__name__} holds all blocks: there is no stage after it to send to")

    def gather_outputs(self, outputs: list[Tensor]) -> list[Tensor] | None:
        """Outputs of all blocks, from those of this process's blocks; None where another process gets them."""
        return outputs

    def broadcast(self, value: Tensor | dict[str, Tensor] | None) -> Any:
        """Broadcast a value from the process that has it to all processes."""
        return value
