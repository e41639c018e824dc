"""A fully connected residual network."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lightning_ff.validate import check_choice, check_int


class Residual(nn.Module):
    """`x + B relu(A x)` on `(N, D)`, with learned offsets of A and B.

    Args:
        width: D, the units of the input, the hidden layer and the output.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x).relu())


class ResidualMLP(nn.Sequential):
    """A linear encoder, residual blocks `x + B relu(A x)` of one width, and a linear classifier.

    A :func:`~lightning_ff.blocks.partition` returns the encoder, one block per residual block, and the classifier.

    Args:
        num_classes: Number of classes.
        inputs: Number of input features.
        width: Units of every layer.
        blocks: Number of residual blocks.
        encoder: The encoder is "learned", or "fixed": a random projection whose weights require no gradient. With
            "fixed", methods that cut the network take `frozen=1`.

    Raises:
        ValueError: an argument is out of range.

    Example::

        >>> import torch
        >>> ResidualMLP(10, inputs=64, width=32, blocks=2)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        num_classes: int,
        inputs: int,
        width: int = 128,
        blocks: int = 8,
        encoder: Literal["learned", "fixed"] = "learned",
    ) -> None:
        given = {"num_classes": num_classes, "inputs": inputs, "width": width, "blocks": blocks}
        for name, value in given.items():
            check_int(name, value)
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        check_choice("encoder", encoder, ("learned", "fixed"))
        projection = nn.Linear(inputs, width).requires_grad_(encoder == "learned")
        residual = [Residual(width) for _ in range(blocks)]
        super().__init__(nn.Sequential(nn.Flatten(), projection), *residual, nn.Linear(width, num_classes))
        # attributes of the same names, so that a checkpoint can describe the network
        self.num_classes, self.inputs, self.width = num_classes, inputs, width
        self.blocks, self.encoder = blocks, encoder
