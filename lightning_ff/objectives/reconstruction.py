"""Reconstruction: a block is to keep what its input was."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.objectives.terms import Term
from lightning_ff.target import Target
from lightning_ff.validate import check_choice, check_number


class Reconstruction(Term):
    """Mean squared error of the block's input, decoded from its activation (UFF, arXiv 2404.14664).

    `weight * mean (D(h) - x)^2` over samples and features, with a decoder D of the term's own: linear on the flattened
    activation, or for maps `(N, C, H, W)` of a map a 3x3 convolution after nearest upsampling to the input's size. A
    denoising block puts its noise into its layers; x is then the input without it.

    Args:
        weight: Factor of the term.
        output: The decoder ends "linear", or with a "sigmoid", for inputs in [0, 1] only.

    Raises:
        ValueError: weight is negative, or output is none of these.
        TypeError: weight is not a number.
    """

    decoder: nn.Module

    def __init__(self, weight: float = 1.0, output: Literal["linear", "sigmoid"] = "linear") -> None:
        super().__init__()
        check_number("weight", weight, "must be 0 or more", least=0)
        check_choice("output", output, ("linear", "sigmoid"))
        self.weight = weight
        self.output = output

    def build(self, shape: torch.Size, inputs: torch.Size, num_classes: int) -> None:
        if len(shape) == len(inputs) == 3:
            convolution = nn.Conv2d(shape[0], inputs[0], 3, padding=1)
            self.decoder = nn.Sequential(nn.Upsample(tuple(inputs[1:])), convolution)
        else:
            self.decoder = nn.Sequential(nn.Flatten(), nn.Linear(shape.numel(), inputs.numel()))

    def forward(self, x: Tensor, h: Tensor, target: Target) -> Tensor:
        decoded = self.decoder(h)
        if self.output == "sigmoid":
            decoded = decoded.sigmoid()
        return self.weight * F.mse_loss(decoded, x.detach().reshape(decoded.shape))

    def extra_repr(self) -> str:
        return f"weight={self.weight}, output={self.output!r}"
