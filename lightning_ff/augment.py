"""Augmentation of whole batches on their device: an independent draw for every image, without a loop over images.

A learner applies its argument `augment` to training images. Draws use torch's global generator, whose state is saved in
checkpoints, so a resumed run draws the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.validate import check_int, check_number, check_type


class RandomShift(nn.Module):
    """Shift every image by a random number of pixels in each direction, with zero padding.

    Args:
        pixels: Largest shift, at least 1; horizontal and vertical shifts are independent and uniform.

    Raises:
        ValueError: pixels below 1.
        TypeError: pixels is not an integer.
    """

    def __init__(self, pixels: int = 1) -> None:
        super().__init__()
        check_int("pixels", pixels)
        if pixels < 1:
            raise ValueError(f"pixels={pixels}: must be at least 1")
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(N, C, H, W)` to shifted ones of the same shape."""
        n, _, height, width = x.shape
        padded = F.pad(x, [self.pixels] * 4)
        down, right = (torch.randint(0, 2 * self.pixels + 1, (n, 1), device=x.device) for _ in range(2))
        rows = (torch.arange(height, device=x.device) + down).view(n, 1, height, 1)
        columns = (torch.arange(width, device=x.device) + right).view(n, 1, 1, width)
        index = torch.arange(n, device=x.device).view(n, 1, 1, 1)
        channels = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1)
        return padded[index, channels, rows, columns]

    def extra_repr(self) -> str:
        return f"pixels={self.pixels}"


class RandomFlip(nn.Module):
    """Flip every image horizontally with probability `p`.

    Args:
        p: Probability, in [0, 1].

    Raises:
        ValueError: p outside [0, 1].
        TypeError: p is not a number.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_number("p", p, "must lie in [0, 1]", least=0)
        if p > 1:
            raise ValueError(f"p={p}: must lie in [0, 1]")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(N, C, H, W)` to flipped ones of the same shape."""
        chosen = torch.rand(x.shape[0], 1, 1, 1, device=x.device) < self.p
        return torch.where(chosen, x.flip(3), x)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Cutout(nn.Module):
    """Overwrite a square at a random position in every image (arXiv 1708.04552), clipped at the border.

    Args:
        size: Side of the square in pixels, at least 1.
        value: Fill value: 0 is the mean of standardised images.

    Raises:
        ValueError: size below 1, or value not finite.
        TypeError: size is not an integer, or value is not a number.
    """

    def __init__(self, size: int = 8, value: float = 0.0) -> None:
        super().__init__()
        check_int("size", size)
        if size < 1:
            raise ValueError(f"size={size}: must be at least 1")
        check_number("value", value, "give a finite number")
        self.size = size
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(N, C, H, W)` to images of the same shape with an overwritten square."""
        n, _, height, width = x.shape
        rows = self._square(n, height, x.device).view(n, 1, height, 1)
        columns = self._square(n, width, x.device).view(n, 1, 1, width)
        return x.masked_fill(rows & columns, self.value)

    def _square(self, n: int, length: int, device: torch.device) -> Tensor:
        start = torch.randint(0, length, (n, 1), device=device) - self.size // 2
        position = torch.arange(length, device=device)
        return (position >= start) & (position < start + self.size)

    def extra_repr(self) -> str:
        return f"size={self.size}, value={self.value}"


class Compose(nn.Module):
    """Several augmentations, one after another.

    Args:
        transforms: Modules that map images `(N, C, H, W)` to images.

    Raises:
        TypeError: transforms is not a list, or one of them is not a module.
    """

    def __init__(self, transforms: list[nn.Module]) -> None:
        super().__init__()
        remedy = "give a list, such as [RandomShift(4), RandomFlip()]"
        check_type("transforms", transforms, (list, tuple, nn.ModuleList), remedy)
        for i, transform in enumerate(transforms):
            check_type(f"transforms[{i}]", transform, nn.Module, "give a module, such as RandomShift(4)")
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(N, C, H, W)` to augmented ones."""
        for transform in self.transforms:
            x = transform(x)
        return x
