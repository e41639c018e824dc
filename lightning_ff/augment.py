"""Augmentation of whole batches on their device: every image gets its own draw, without a loop over images.

A learner calls it as `augment=` on training images; the draws come from torch's global generator, whose state is kept
in the checkpoint, so a resumed run agrees.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RandomShift(nn.Module):
    """Move every image by up to some pixels in each direction; what comes in at the border is zero.

    Args:
        pixels: Largest shift, at least 1; horizontal and vertical shifts are independent and uniform.

    Raises:
        ValueError: pixels below 1.
    """

    def __init__(self, pixels: int = 1) -> None:
        super().__init__()
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
