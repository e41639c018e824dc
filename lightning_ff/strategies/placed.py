"""Gradients of linear layers, computed right where other processes read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.forward_ad import unpack_dual
from typing_extensions import override

Place = Callable[[Tensor], Tensor | None]

LEAST = 2**19  # numbers of a weight: copying the gradient of a smaller one takes no longer than asking


class Placing:
    """While entered, a backward through linear layers asks where the gradient of a weight shall lie.

    Values are those of torch's own backward: only their place in memory is another one, which saves a copy of each.

    Args:
        modules: In which linear layers are looked for; those that are changed in any way stay as they are.
        place: Memory of a weight's shape that its gradient may be written to; None: wherever torch puts it.
    """

    def __init__(self, modules: Iterable[nn.Module], place: Place) -> None:
        found = [m for module in modules for m in module.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
        self._forwards = [(m, partial(_forward, m, place)) for m in found if m.weight.numel() >= LEAST]

    def __enter__(self) -> None:
        for linear, forward in self._forwards:
            vars(linear)["forward"] = forward

    def __exit__(self, *error: object) -> None:
        for linear, _ in self._forwards:
            vars(linear).pop("forward")


def _forward(linear: nn.Linear, place: Place, input: Tensor) -> Tensor:
    x, weight, bias = input, linear.weight, linear.bias
    return _Linear.apply(x, weight, bias, place) if _plain(x, weight) else F.linear(x, weight, bias)


def _plain(x: Tensor, weight: Tensor) -> bool:
    """Whether a linear layer is one matrix product on the processor, in the type of its weights."""
    return (
        type(weight) is nn.Parameter
        and type(x) is Tensor
        and x.dim() == 2
        and x.is_cpu
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and unpack_dual(x).tangent is None
        and not torch._C._are_functorch_transforms_active()
    )


class _Linear(Function):
    """`F.linear` of a matrix; its backward writes the gradient of the weight to a place of its own."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, place: Place) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.place = place
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias, _ = ctx.needs_input_grad
        # what has a graph of its own cannot be placed
        place = ctx.place(weight) if by_weight and not torch.is_grad_enabled() else None
        return (
            gradient @ weight if by_x else None,
            _product(gradient.t(), x, place) if by_weight else None,
            gradient.sum(0) if by_bias else None,
            None,
        )


def _product(a: Tensor, b: Tensor, place: Tensor | None) -> Tensor:
    return a @ b if place is None else torch.mm(a, b, out=place)
