"""Class goodness: one number per class from a block's activation, by a small learned projection or unchanged.

Shapes: N samples, C channels, P positions (pixels or tokens), K classes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.objectives.goodness import Goodness, Mode
from lightning_ff.validate import check_flag, check_int


def projected_goodness(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Mean over positions of the squared projection, one per class (arXiv 2501.03176).

    Args:
        x: Activations by channel and position `(N, C, P)`.
        weight: Projection of the channels `(K, C)`.
        bias: Offset of the projection `(K,)`.

    Returns:
        Goodness `(N, K)`.

    Example::

        >>> projected_goodness(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[1.0], [2.0]]))
        tensor([[ 5., 20.]])
    """
    projected = weight @ x
    return (projected if bias is None else projected + bias[:, None]).square().mean(2)


def gram_goodness(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`projected_goodness` without its map of `(N, K, P)`: `w^T M w + 2 b w^T mu + b^2` per class.

    It is less accurate in float32 than the projection if means are much larger than deviations, which is not the case
    after a normalisation. `M = x x^T / P` holds the second moments of the channels and `mu` their means, so that the
    cost is `C^2 P + K C^2` in place of `K C P`, and memory does not grow with K times P.

    Example::

        >>> gram_goodness(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[1.0], [2.0]]))
        tensor([[ 5., 20.]])
    """
    moments = x @ x.mT / x.shape[2]
    goodness = (weight @ moments * weight).sum(2)
    if bias is None:
        return goodness
    return goodness + 2 * bias * (x.mean(2) @ weight.T) + bias.square()


def gram_is_cheaper(channels: int, positions: int, num_classes: int) -> bool:
    """Whether the Gram form takes fewer products than the projection.

    Example::

        >>> gram_is_cheaper(64, 56 * 56, 1000), gram_is_cheaper(512, 7 * 7, 1000), gram_is_cheaper(64, 56 * 56, 10)
        (True, False, False)
    """
    return channels * positions + num_classes * channels < num_classes * positions


class AuxiliaryGoodness(Goodness):
    """A small auxiliary convolution with one output per class; the goodness is its mean square (arXiv 2501.03176).

    Maps `(N, C, H, W)` are convolved; tokens `(N, T, C)` and flat outputs `(N, C)` get a linear layer per token, and
    the square is averaged over tokens. A network passes outputs in these shapes, whatever the channel axis of its
    layers. The convolution is used for the goodness alone, with padding that keeps the size of the map. With
    `kernel_size=1` the cheaper of two exact forms is computed, see :func:`gram_goodness`.

    Args:
        kernel_size: 1, 3, 5, ... on maps; 3 helps early blocks, whose single pixels carry little information.
        bias: Learn an offset per class.

    Raises:
        ValueError: an even kernel.
    """

    mode: Mode = "class"
    weight: nn.Parameter
    offset: nn.Parameter | None

    def __init__(self, kernel_size: int = 1, bias: bool = True) -> None:
        super().__init__()
        check_int("kernel_size", kernel_size)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: must be odd, such as 1, 3 or 5")
        self.kernel_size = kernel_size
        check_flag("bias", bias)
        self.bias = bias
        self.register_parameter("weight", None)
        self.register_parameter("offset", None)

    def build(self, shape: torch.Size, num_classes: int) -> None:
        size = self.kernel_size if len(shape) == 3 else 1
        if len(shape) > 3 and self.kernel_size > 1:
            raise ValueError(f"kernel_size={self.kernel_size} is for images: use kernel_size=1 for {tuple(shape)}")
        channels = shape[0] if len(shape) > 2 else shape[-1]
        made = nn.Conv2d(channels, num_classes, size, bias=self.bias)
        self.weight = cast(nn.Parameter, made.weight)
        self.offset = cast("nn.Parameter | None", made.bias)

    def forward(self, h: Tensor) -> Tensor:
        if self.weight is None:
            raise RuntimeError("AuxiliaryGoodness has no weights yet: LocalNetwork builds them from its input_shape")
        weight = self.weight.to(h.dtype)
        offset = None if self.offset is None else self.offset.to(h.dtype)
        if self.kernel_size > 1 and h.dim() == 4:
            return F.conv2d(h, weight, offset, padding=self.kernel_size // 2).square().mean((2, 3))
        weight = weight.flatten(1)
        if h.dim() == 2:
            return F.linear(h, weight, offset).square()
        x = h.mT if h.dim() == 3 else h.flatten(2)
        if gram_is_cheaper(x.shape[1], x.shape[2], weight.shape[0]):
            return gram_goodness(x, weight, offset)
        if h.dim() == 4:  # on a map the convolution is faster than the product over a batch of matrices
            return F.conv2d(h, weight[:, :, None, None], offset).square().mean((2, 3))
        return projected_goodness(x, weight, offset)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, bias={self.bias}"


class OutputGoodness(Goodness):
    """A block's output `(N, K)` is its goodness: for the classifier of a network."""

    mode: Mode = "class"

    def forward(self, h: Tensor) -> Tensor:
        return h
