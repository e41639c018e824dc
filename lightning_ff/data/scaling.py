"""Scaling of stored pixels to inputs of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Affine:
    """``image * factor - shift``, channel by channel, in float32.

    Args:
        factor: One number, or one per channel.
        shift: One number, or one per channel; ``None`` is 0.

    >>> Affine([1 / 255])(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8))
    tensor([[[[0.0000, 0.2000, 1.0000]]]])
    """

    def __init__(self, factor: Sequence[float], shift: Sequence[float] | None = None) -> None:
        self.factor = torch.tensor(factor).view(-1, 1, 1)
        self.shift = None if shift is None else torch.tensor(shift).view(-1, 1, 1)

    def __call__(self, image: Tensor) -> Tensor:
        """Scale a batch; a float32 batch is changed in place.

        Args:
            image: Stored pixels, shape ``(N, C, H, W)``.

        Returns:
            The scaled batch, float32, same shape.
        """
        image = image.to(torch.float32).mul_(self.factor)
        return image if self.shift is None else image.sub_(self.shift)


def unit(pixel_max: float) -> Affine:
    """Scale pixels to 0..1."""
    return Affine([1 / pixel_max])


def standard(pixel_max: float, mean: Sequence[float], std: Sequence[float]) -> Affine:
    """Scale channels to mean 0 and standard deviation 1; ``mean`` and ``std`` are those of pixels in 0..1."""
    factor = [1 / (pixel_max * s) for s in std]
    return Affine(factor, [m / s for m, s in zip(mean, std, strict=True)])
