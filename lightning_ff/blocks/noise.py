"""Noise on activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_ff.validate import check_number


class GaussianNoise(nn.Module):
    """Adds normal noise in train mode.

    Args:
        std: Standard deviation, 0 or more.

    Raises:
        ValueError: std is negative.
        TypeError: std is not a number.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        check_number("std", std, "must be 0 or more", least=0)
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn_like(x) if self.training and self.std else x

    def extra_repr(self) -> str:
        return f"std={self.std}"
