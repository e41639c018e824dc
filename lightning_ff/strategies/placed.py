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

from lightning_ff._lightning import transforming

Place = Callable[[Tensor], Tensor | None]

LEAST = 2**19  # numbers of a weight: copying the gradient of a smaller one takes no longer than asking


class Placing:
    """While entered, a backward through linear layers asks where the gradient of a weight shall lie.

    What gets a place lies there alone, as the share that one of several processes has in their mean: it need not be
    copied nor multiplied, and is not in `weight.grad`. All else is as in torch's own backward.

    Args:
        modules: In which large linear layers are looked for; those that are changed in any way stay as they are.
        place: Memory like a weight that a share of its gradient is written to; None: the gradient goes torch's way.
        share: What gradients that have a place are multiplied with.
    """

    def __init__(self, modules: Iterable[nn.Module], place: Place, share: float) -> None:
        found = dict.fromkeys(m for module in modules for m in module.modules() if type(m) is nn.Linear)
        self._forwards = [
            _Forward(m, place, share) for m in found if m.weight.numel() >= LEAST and "forward" not in vars(m)
        ]

    def __enter__(self) -> None:
        for forward in self._forwards:
            vars(forward.linear)["forward"] = forward

    def __exit__(self, *error: object) -> None:
        for forward in self._forwards:
            vars(forward.linear).pop("forward", None)


class _Forward:
    """In place of the `forward` of a linear layer; a copy of the layer gets torch's own."""

    def __init__(self, linear: nn.Linear, place: Place, share: float) -> None:
        self.linear, self.place, self.share = linear, place, share

    def __call__(self, input: Tensor) -> Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        if not _plain(input, weight):
            return F.linear(input, weight, bias)
        return _Linear.apply(input, weight, bias, self.place, self.share)

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.linear, "forward")  # asked before the copy has this one


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
        and not transforming()
    )


class _Linear(Function):
    """`F.linear` of a matrix; its backward writes a share of the weight's gradient to a place of its own."""

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, place: Place, share: float) -> Tensor:
        by_x, by_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if by_weight else None, weight if by_x else None)  # others may be changed, as in torch
        ctx.place, ctx.share = partial(place, weight), share
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias, *_ = ctx.needs_input_grad
        # what has a graph of its own cannot be placed
        place = ctx.place() if by_weight and not torch.is_grad_enabled() else None
        if place is not None:
            _product(gradient.t(), x, place, ctx.share)
        return (
            gradient @ weight if by_x else None,
            gradient.t() @ x if by_weight and place is None else None,
            gradient.sum(0) if by_bias else None,
            None,
            None,
        )


def _product(a: Tensor, b: Tensor, place: Tensor, share: float) -> None:
    """Write a share of a product to its place, in one pass."""
    place.addmm_(a, b, beta=0, alpha=share)
