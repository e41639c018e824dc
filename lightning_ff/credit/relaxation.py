"""Activation relaxation: signals for all blocks by a relaxation from the last block's loss.

Shapes: N samples, K blocks; h_k is the output of block k, s_k its signal, of the same shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from lightning_ff.blocks.local_block import Activation, first
from lightning_ff.credit.base import SignalCredit
from lightning_ff.network import LocalNetwork
from lightning_ff.target import Pairs, Target
from lightning_ff.validate import check_int, check_number


@dataclass
class _Link:
    """Graph of one block: its input h_(k-1) as a leaf, and what depends on it, its output h_k and its own losses."""

    leaf: Tensor
    h: Tensor
    losses: list[Tensor]

    def pull(self, signal: Tensor | None) -> Tensor:
        """Gradient at the input, of the own losses, and of the output times a signal."""
        outputs = self.losses if signal is None else [self.h, *self.losses]
        ones = [torch.ones_like(loss) for loss in self.losses]
        signals = ones if signal is None else [signal, *ones]
        (found,) = torch.autograd.grad(outputs, self.leaf, signals, retain_graph=True, materialize_grads=True)
        return found


class ActivationRelaxation(SignalCredit):
    """Activation relaxation (Millidge et al., arXiv 2009.05359): backprop's gradients as a fixed point.

    A forward pass gives every block's output h_k. With the derivatives kept at that pass, the signals relax by
    `s_k <- s_k - rate (s_k - J_(k+1)^T s_(k+1))`, where `s_K` is the gradient of the last block's loss. Block k then
    learns from `<h_k, s_k>`, at its own input. Where the relaxation has converged, `0 < rate < 2`, the gradients
    are those of `segments="last"`; after too few steps the signals of early blocks are too small. It needs the memory
    of backprop and one more forward pass, and `steps` passes back. Terms of any block are part of the loss.

    Args:
        rate: Step size of the relaxation, in (0, 2).
        steps: Number of steps. Top-down with `rate=1`, one step is exact.
        start: Signals before the first step: "zero", or the "activations" as published, which leaves a bias of
            `(1 - rate)^steps` times the activations.
        order: "top-down" updates the blocks of a step from the last to the first, each from the signal just updated;
            "parallel" updates all from the signals of the step before.

    Raises:
        ValueError: an argument is out of bounds or not one of its choices.
        TypeError: rate is not a number, or steps not an integer.
    """

    def __init__(
        self,
        rate: float = 0.5,
        steps: int = 20,
        start: Literal["zero", "activations"] = "zero",
        order: Literal["top-down", "parallel"] = "top-down",
    ) -> None:
        super().__init__()
        check_number("rate", rate, "must lie between 0 and 2, where the relaxation converges", above=0)
        check_int("steps", steps)
        if rate >= 2:
            raise ValueError(f"rate={rate}: must lie between 0 and 2, where the relaxation converges")
        if steps < 1:
            raise ValueError(f"steps={steps}: must be at least 1")
        if start not in ("zero", "activations"):
            raise ValueError(f"start={start!r}: choose 'zero' or 'activations'")
        if order not in ("top-down", "parallel"):
            raise ValueError(f"order={order!r}: choose 'top-down' or 'parallel'")
        self.rate = rate
        self.steps = steps
        self.start: Literal["zero", "activations"] = start
        self.order: Literal["top-down", "parallel"] = order

    @override
    def prepare(self, network: LocalNetwork, x: Activation, target: Target) -> None:
        lowest = next((k for k, block in enumerate(network.stack) if block.trainable), len(network.blocks))
        with unchanged(network, first(x).device):
            links = _links(network, x, target, lowest)
            self._signals = dict(enumerate(self._relax(links), lowest))

    def _relax(self, links: list[_Link]) -> list[Tensor]:
        """Signals of the outputs at the leaves of the links."""
        if not links:
            return []
        signals = [torch.zeros_like(link.leaf) if self.start == "zero" else link.leaf.detach() for link in links]
        top = links[-1].pull(None)
        for _ in range(self.steps):
            source = signals if self.order == "top-down" else list(signals)
            for k in reversed(range(len(links))):
                pulled = top if k == len(links) - 1 else links[k].pull(source[k + 1])
                signals[k] = torch.lerp(signals[k], pulled, self.rate)
        return signals

    def extra_repr(self) -> str:
        return f"rate={self.rate}, steps={self.steps}, start={self.start!r}, order={self.order!r}"


@torch.enable_grad()
def _links(network: LocalNetwork, x: Activation, target: Target, lowest: int) -> list[_Link]:
    """Graphs of the blocks after the lowest one that learns."""
    positives = target.positives if isinstance(target, Pairs) else None
    h, links = x, list[_Link]()
    for k, block in enumerate(network.stack):
        leaf = first(h).detach().requires_grad_(k > lowest)
        x = network.stack[k - 1].hand_over(leaf) if k else x
        last = k == len(network.blocks) - 1
        with torch.set_grad_enabled(k > lowest):
            h, goodness = block(x, positives, measure=last)
        if k > lowest:
            own = block.own_loss(goodness, target) if last else None
            losses = [*([] if own is None else [own]), *block.term_losses(first(x), first(h), target)]
            links.append(_Link(leaf, first(h), losses))
    return links


@contextmanager
def unchanged(network: LocalNetwork, device: torch.device) -> Iterator[None]:
    """Context manager: restores buffers and the random state, so that the sweep repeats the same forward pass."""
    kept = [(buffer, buffer.clone()) for buffer in network.blocks.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, value in kept:
            buffer.copy_(value)
