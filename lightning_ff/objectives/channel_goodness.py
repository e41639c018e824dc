"""Class goodness without a head: groups of channels, and the angle to prototypes.

Shapes: N samples, D features, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.objectives.goodness import Goodness, Mode
from lightning_ff.validate import check_flag, check_number


def channel_goodness(h: Tensor, num_classes: int, square: bool = True) -> Tensor:
    """Mean of the squares, or of the activations, of one group of channels per class (arXiv 2312.12668).

    Args:
        h: Activations with the channels in dimension 1, `(N, D)` or `(N, D, H, W)`; D is a multiple of K.
        num_classes: K; class c has the channels from `c D / K` to `(c + 1) D / K`.
        square: Square the activations.

    Returns:
        Goodness `(N, K)`.

    Example::

        >>> channel_goodness(torch.tensor([[1.0, 3.0, 0.0, 2.0]]), num_classes=2)
        tensor([[5., 2.]])
    """
    groups = h.reshape(len(h), num_classes, -1)
    return (groups.square() if square else groups).mean(2)


class ChannelGoodness(Goodness):
    """The channels are divided into one group per class, whose mean (square) is the class's goodness: no parameters.

    Channel-wise competition (arXiv 2312.12668) takes squares, DeeperForward (ICLR 2025) the mean, which
    :class:`~lightning_ff.GroupNormalize` removes exactly from what is handed on. The number of channels must be a
    multiple of the number of classes. See :func:`channel_goodness`.

    Args:
        square: Square the activations.

    Raises:
        TypeError: square is not a bool.
    """

    mode: Mode = "class"

    def __init__(self, square: bool = True) -> None:
        super().__init__()
        check_flag("square", square)
        self.square = square
        self.num_classes = 0

    def build(self, shape: torch.Size, num_classes: int) -> None:
        channels = shape[0]
        if channels % num_classes:
            raise ValueError(
                f"ChannelGoodness needs a multiple of {num_classes} channels, one group per class, and the block has "
                f"{channels}: change its width, such as to {-(-channels // num_classes) * num_classes}"
            )
        if len(shape) == 2:
            raise ValueError(f"ChannelGoodness takes features or maps, and the block gives tokens {tuple(shape)}")
        self.num_classes = num_classes

    def forward(self, h: Tensor) -> Tensor:
        return channel_goodness(h, self.num_classes, self.square)

    def extra_repr(self) -> str:
        return f"square={self.square}"


class CosineGoodness(Goodness):
    """Cosine of the angle to one prototype per class, times a scale (Hyperspherical Forward-Forward).

    `g_c = scale cos(h, w_c)` for the flattened activation `h` and a prototype `w_c` of random direction.

    Args:
        scale: Factor of the cosine, the inverse temperature of a softmax over it; above 0.
        learned: Learn the prototypes with the block; otherwise they are fixed.

    Raises:
        ValueError: scale is not above 0.
        TypeError: scale is not a number, or learned not a bool.
    """

    mode: Mode = "class"
    prototypes: Tensor

    def __init__(self, scale: float = 16.0, learned: bool = True) -> None:
        super().__init__()
        check_number("scale", scale, "must be above 0", above=0)
        check_flag("learned", learned)
        self.scale = scale
        self.learned = learned

    def build(self, shape: torch.Size, num_classes: int) -> None:
        made = F.normalize(torch.randn(num_classes, shape.numel()), dim=1)
        if self.learned:
            self.prototypes = nn.Parameter(made)
        else:
            self.register_buffer("prototypes", made)

    def forward(self, h: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(h.flatten(1)), F.normalize(self.prototypes.to(h.dtype)))

    def extra_repr(self) -> str:
        return f"scale={self.scale}, learned={self.learned}"
