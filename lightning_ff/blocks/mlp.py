"""Fully connected layers and networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_ff.validate import check_flag, check_int, check_ints, check_number

ActivationName = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class FullGradientReLU(nn.Module):
    """ReLU whose backward passes the gradient of inactive units through unchanged (straight-through).

    With a goodness of squares alone it has no effect, since the gradient at a zero activation is zero; it has
    an effect together with another term, such as peer normalisation.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _StraightThrough.apply(x)


def _nonlinearity(name: str) -> nn.Module:
    # the linear layer's backward does not need its output
    return nn.ReLU(inplace=True) if name == "relu" else _ACTIVATIONS[name]()


def mlp(
    inputs: int,
    widths: Sequence[int],
    activation: ActivationName = "relu",
    full_gradient: bool = False,
    dropout: float = 0.0,
) -> list[nn.Sequential]:
    """Fully connected layers, one `nn.Sequential` per width; the first flattens its input.

    Args:
        inputs: Number of input features.
        widths: Units of each layer, at least one, each at least 1.
        activation: Non-linearity.
        full_gradient: Pass gradients through inactive ReLU units, see :class:`FullGradientReLU`.
        dropout: Probability of dropping an activation after the non-linearity, in [0, 1).

    Returns:
        One module per layer: `(N, inputs)` to `(N, widths[0])`, and so on.

    Raises:
        ValueError: widths is empty or has a value below 1, the activation is unknown, `full_gradient` is used with
            another activation than ReLU, or dropout is outside [0, 1).

    Example::

        >>> [layer[1] for layer in mlp(64, [10, 5])]
        [Linear(in_features=64, out_features=10, bias=True), Linear(in_features=10, out_features=5, bias=True)]
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"widths={list(widths)}: give one number of units per layer, each at least 1")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise ValueError(f"activation={activation!r}: choose one of {', '.join(get_args(ActivationName))}")
    check_flag("full_gradient", full_gradient)
    if full_gradient and activation != "relu":
        raise ValueError(f"full_gradient=True works with activation='relu', not {activation!r}")
    check_number("dropout", dropout, "must lie in [0, 1)", least=0)
    if dropout >= 1:
        raise ValueError(f"dropout={dropout}: must lie in [0, 1)")
    layers = []
    for fan_in, fan_out in zip([inputs, *widths], widths, strict=False):
        nonlinearity = FullGradientReLU() if full_gradient else _nonlinearity(activation)
        parts: list[nn.Module] = [nn.Flatten(), nn.Linear(fan_in, fan_out), nonlinearity]
        if dropout:
            parts.append(nn.Dropout(dropout))
        layers.append(nn.Sequential(*parts))
    return layers


class MLP(nn.Sequential):
    """A fully connected network with a linear classifier, for the methods that cut a network into blocks.

    A :func:`~lightning_ff.blocks.partition` returns one block per layer, and the classifier.

    Args:
        num_classes: Number of classes.
        inputs: Number of input features.
        widths: Units of each hidden layer.
        activation: Non-linearity.
        dropout: Probability of dropping an activation after the non-linearity, in [0, 1).

    Raises:
        ValueError: an argument is out of range.

    Example::

        >>> MLP(10, inputs=64, widths=[32, 16])(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        inputs: int,
        widths: Sequence[int] = (1000, 1000, 1000),
        activation: ActivationName = "relu",
        dropout: float = 0.0,
    ) -> None:
        check_int("num_classes", num_classes)
        check_int("inputs", inputs)
        check_ints("widths", widths, "give the units of every layer, such as [500, 500]")
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: must be at least 1")
        if inputs < 1:
            raise ValueError(f"inputs={inputs}: must be at least 1, such as 784 for images of 28 x 28")
        layers = mlp(inputs, widths, activation, dropout=dropout)
        super().__init__(*layers, nn.Linear(widths[-1], num_classes))
        # attributes of the same names, so that a checkpoint can describe the network
        self.num_classes, self.inputs, self.widths = num_classes, inputs, list(widths)
        self.activation, self.dropout = activation, dropout
