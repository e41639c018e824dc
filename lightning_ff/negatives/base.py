"""Base class of negative samplers, and their context (pair mode).

A sampler is a part of the learner; callbacks change it during training. Draws are a hash of (seed, epoch, index of the
sample), so they are the same on any number of processes and after a resume, and no global random state is used.
Shapes: N samples, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ff.labels import LabelEncoding
from lightning_ff.network import LocalNetwork
from lightning_ff.validate import check_int


@dataclass(frozen=True)
class NegativeContext:
    """State of the run for a sampler.

    Attributes:
        network: The network that learns, with its label encoding.
        epoch: Index of the epoch.
        batch: Index of the batch in the epoch.
        rank: Rank of the process.
        held_out: Classes that training must not see.
    """

    network: LocalNetwork
    epoch: int = 0
    batch: int = 0
    rank: int = 0
    held_out: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.network.num_classes

    @property
    def labels(self) -> LabelEncoding:
        """The label encoding."""
        assert self.network.labels is not None
        return self.network.labels

    @torch.no_grad()
    def scores(self, x: Tensor) -> Tensor:
        """Class scores `(N, C)` of inputs `(N, *input_shape)` by the current network, in eval mode."""
        with self.network.evaluating():
            return self.network(x)

    def __call__(self, x: Tensor) -> Tensor:
        """Deprecated: `learner(x)` of earlier releases, see `scores`."""
        scores: Tensor = self.forward(x)
        return scores

    def __getattr__(self, name: str) -> Any:
        if name not in _OLD_NAMES:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}; a negative sampler gets this context in "
                "place of the learner, with network, epoch, batch, rank, held_out, num_classes, labels and scores(x)"
            )
        warnings.warn(
            f"a negative sampler gets a NegativeContext in place of the learner: write context.{_OLD_NAMES[name]} for "
            f"learner.{name}, which is removed in the next release",
            FutureWarning,
            stacklevel=2,
        )
        return getattr(self.network if name == "block_scores" else self, _OLD_NAMES[name].rpartition(".")[2])


_OLD_NAMES = {
    "batch_number": "batch",
    "block_scores": "network.block_scores",
    "current_epoch": "epoch",
    "forward": "scores",
    "global_rank": "rank",
}


class NegativeSampler(nn.Module):
    """Base of all samplers: override `forward(x, y, index, context)`.

    It returns negatives as the network's input `(k N, ...)`: k groups in the order of the positives. Buffers and
    parameters are saved in checkpoints, apart from the model's weights, so that a resumed run continues with them.

    Args:
        seed: Seed of the draws.

    Attributes:
        needs_index: Only works with loaders that return the samples' index.
        writes_label: Negatives differ from positives by the label in the input.
        needs_scores: Uses class scores of the whole network, before the blocks learn from the batch.
    """

    needs_index = False
    writes_label = True
    needs_scores = False

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        check_int("seed", seed)
        self.seed = int(seed)

    @property
    def version(self) -> int | None:
        """Number that changes when a sample's negatives change; None if they change every epoch."""
        return None

    def positives(self, x: Tensor, y: Tensor, context: NegativeContext) -> Tensor:
        """The positives of these negatives: the true class written into the input."""
        return context.labels(x, y)

    def forward(self, x: Tensor, y: Tensor, index: Tensor, context: NegativeContext) -> Tensor:
        """Make the negatives of a batch: inputs `(N, ...)`, classes `(N,)`, indices `(N,)`."""
        raise TypeError(f"{type(self).__name__} must override forward(x, y, index, context)")

    def extra_repr(self) -> str:
        return f"seed={self.seed}"


def load_state(sampler: NegativeSampler, state: Mapping[str, Any], strict: bool = True) -> None:
    """Load the state of a sampler from a checkpoint.

    Args:
        sampler: The sampler.
        state: The saved `state_dict()`.
        strict: A state that does not fit is an error; otherwise it is ignored.

    Raises:
        ValueError: the state is another sampler's.
    """
    if not strict and _shapes(state) != _shapes(sampler.state_dict()):
        return
    try:
        sampler.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"negatives={sampler} cannot resume from this checkpoint, whose sampler has the state {', '.join(state)}: "
            f"resume with that sampler, and replace it in a later epoch with SwitchNegatives ({error})"
        ) from error


def _shapes(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, "shape", None) for name, value in state.items()}
