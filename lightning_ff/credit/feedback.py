"""Direct feedback alignment: the output error by fixed random matrices.

Shapes: N samples, C classes, D_k features of block k.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from lightning_ff.blocks.local_block import Activation, first
from lightning_ff.credit.base import SignalCredit, check_last_loss
from lightning_ff.credit.relaxation import unchanged
from lightning_ff.network import LocalNetwork
from lightning_ff.target import Target
from lightning_ff.validate import check_int


class DirectFeedback(SignalCredit):
    """Direct feedback alignment (Nøkland, arXiv 1609.01596), which pre-trains the blocks of CaFo (arXiv 2303.09728).

    The error `e = dloss/dg` (N, C) is the gradient of the last block's loss at its goodness. Block k before it learns
    from `<h_k, e B_k>`, pulled through that block alone, with a fixed matrix `B_k` (C, D_k) of normal numbers and rows
    of length 1. The last block learns from its own loss. It costs one more forward pass.

    Args:
        seed: Seed of the matrices, which are drawn again from it in each run and are not in checkpoints.

    Raises:
        TypeError: seed is not an integer.
        ValueError: seed is negative.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        check_int("seed", seed)
        if seed < 0:
            raise ValueError(f"seed={seed}: must be at least 0")
        self.seed = seed
        self._matrices: dict[int, Tensor] = {}
        self._error: Tensor | None = None

    @override
    def check(self, network: LocalNetwork) -> None:
        check_last_loss(self, network)
        if network.mode != "class":
            raise ValueError(f"credit={self} takes class scores, and the network is in pair mode: leave it out")

    @override
    def prepare(self, network: LocalNetwork, x: Activation, target: Target) -> None:
        with unchanged(network, first(x).device):
            for block in network.stack:
                h, goodness = block(x, measure=block is network.stack[-1])
                x = block.hand_over(h)
        assert goodness is not None
        with torch.enable_grad():
            leaf = goodness.detach().requires_grad_()
            loss = network.stack[-1].own_loss(leaf, target)
        assert loss is not None
        (self._error,) = torch.autograd.grad(loss, leaf)
        self._last = len(network.blocks) - 1

    @override
    def signal(self, block: int, h: Tensor) -> Tensor | None:
        if block == self._last:
            return None
        assert self._error is not None
        return (self._error @ self._matrix(block, h).to(self._error)).view_as(h)

    def _matrix(self, block: int, h: Tensor) -> Tensor:
        """Matrix of a block, drawn on the CPU so that it is the same on all devices."""
        assert self._error is not None
        size = self._error.shape[1], h[0].numel()
        if block not in self._matrices or self._matrices[block].shape != size:  # of another network
            generator = torch.Generator().manual_seed((self.seed * 1000 + block) % 2**63)
            drawn = torch.randn(size, generator=generator, dtype=torch.float32)  # the same in all precisions
            self._matrices[block] = F.normalize(drawn, dim=1).to(h.device)
        return self._matrices[block]

    def extra_repr(self) -> str:
        return f"seed={self.seed}"
