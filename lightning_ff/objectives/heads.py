"""Class goodness by auxiliary classifiers that average over positions: a linear one, and a convolutional one.

Shapes: N samples, C channels, H x W positions of a map, T tokens, K classes, Q pooled positions per side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.objectives.goodness import Goodness, LinearGoodness, Mode
from lightning_ff.validate import check_int


def position_mean(h: Tensor) -> Tensor:
    """Mean over the positions of maps `(N, C, ...)` or tokens `(N, T, C)`; flat activations `(N, C)` are unchanged.

    Returns:
        Mean activations `(N, C)`.

    Example::

        >>> position_mean(torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]]))
        tensor([[2., 2.]])
    """
    if h.dim() == 2:
        return h
    return h.mean(1) if h.dim() == 3 else h.flatten(2).mean(2)


def _channels(shape: torch.Size) -> int:
    """Channels of an activation of `shape` without the batch axis: the last axis of tokens, else the first one."""
    return shape[-1] if len(shape) == 2 else shape[0]


class PooledLinear(LinearGoodness):
    """Global average pool over positions, then one linear projection per class (BWBPF, arXiv 2312.13311): class mode.

    Maps `(N, C, H, W)` and tokens `(N, T, C)` become `(N, C)`; flat activations are not pooled.

    Args:
        bias: Learn an offset per class.

    Example::

        >>> head = PooledLinear()
        >>> head.build(torch.Size([8, 4, 4]), 10)
        >>> head(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 10])
    """

    def build(self, shape: torch.Size, num_classes: int) -> None:
        super().build(torch.Size([_channels(shape)]), num_classes)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(position_mean(h))


class ConvHead(Goodness):
    """Convolution, ReLU, average pool, batch norm and a linear layer (TRGL, arXiv 2309.17357): class mode.

    The convolution is 3 x 3 from C to C channels without bias. The map is pooled to Q x Q positions, or fewer if the
    map is smaller. Tokens `(N, T, C)` are averaged, and then, as flat activations `(N, C)`, get a linear layer alone.

    Args:
        pool: Q, the positions per side after the average pool. The papers do not state it.

    Raises:
        ValueError: `pool` is below 1, or an activation has more than two axes of positions.

    Example::

        >>> head = ConvHead()
        >>> head.build(torch.Size([8, 4, 4]), 10)
        >>> head(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 10])
    """

    mode: Mode = "class"
    convolution: nn.Conv2d | None
    norm: nn.BatchNorm2d | None
    projection: nn.Linear | None

    def __init__(self, pool: int = 2) -> None:
        super().__init__()
        check_int("pool", pool, "give the positions per side, such as 2")
        if pool < 1:
            raise ValueError(f"pool={pool}: must be at least 1, the positions per side after the average pool")
        self.pool = pool
        self.convolution = self.norm = self.projection = None

    def build(self, shape: torch.Size, num_classes: int) -> None:
        if len(shape) > 3:
            raise ValueError(f"ConvHead takes maps (C, H, W), tokens or flat activations, not {tuple(shape)}")
        channels, features = _channels(shape), _channels(shape)
        if len(shape) == 3:
            self._sides = (min(self.pool, shape[1]), min(self.pool, shape[2]))
            self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(channels)
            features = channels * self._sides[0] * self._sides[1]
        self.projection = nn.Linear(features, num_classes)

    def forward(self, h: Tensor) -> Tensor:
        if self.projection is None:
            raise RuntimeError("ConvHead has no weights yet: LocalNetwork builds them from its input_shape")
        features = position_mean(h) if self.convolution is None else self._pooled(h)
        return F.linear(features, self.projection.weight.to(h.dtype), self.projection.bias.to(h.dtype))

    def _pooled(self, h: Tensor) -> Tensor:
        """Features of a map, flat: `(N, C * Q * Q)`."""
        assert self.convolution is not None
        assert self.norm is not None
        convolved = F.conv2d(h, self.convolution.weight.to(h.dtype), padding=1).relu()
        pooled = F.adaptive_avg_pool2d(convolved, self._sides)
        # batch norm takes no wider input than its running statistics
        return self.norm(pooled.to(self.norm.weight.dtype)).to(h.dtype).flatten(1)

    def extra_repr(self) -> str:
        return f"pool={self.pool}"
