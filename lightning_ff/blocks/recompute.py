"""Less memory for more time: the inside of a block is computed again in its backward, piece by piece.

A piece is a convolution or linear layer with the normalisation and activation behind it. Only what goes into a piece is
kept; inside, everything is computed again when the backward comes to it, and freed before it comes to the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from lightning_ff._torch import NormBase

_HEADS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_FOLLOWERS = (NormBase, nn.LayerNorm, nn.GroupNorm, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.Sigmoid)


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Normalisation by the batch as in training, without an update of running statistics."""
    tracking = [m for m in module.modules() if isinstance(m, NormBase) and m.track_running_stats]
    for part in tracking:
        part.track_running_stats = False
    try:
        yield
    finally:
        for part in tracking:
            part.track_running_stats = True


def pieces(layers: GraphModule) -> dict[Node, list[Node]]:
    """The nodes behind each convolution or linear layer that are computed again with it, by that layer's node."""
    found = {}
    for node in layers.graph.nodes:
        if _is(layers, node, _HEADS):
            chain = [node]
            while len(chain[-1].users) == 1 and _is(layers, follower := next(iter(chain[-1].users)), _FOLLOWERS):
                chain.append(follower)
            if len(chain) > 1:
                found[node] = chain[1:]
    return found


def _is(layers: GraphModule, node: Node, kinds: tuple[type[nn.Module], ...]) -> bool:
    if node.op != "call_module":
        return False
    module = layers.get_submodule(str(node.target))
    # A weight that is made anew in every call, such as a spectral norm's, would be another one in the backward.
    made = isinstance(module, _HEADS) and "weight" not in dict(module.named_parameters(recurse=False))
    return isinstance(module, kinds) and not made


class _Again(torch.autograd.Function):
    """Runs modules in a row, keeps what goes in, and runs them again in the backward.

    Parameters are inputs of it, since the input of a local block asks for no gradient. It is not torch's checkpoint,
    which hides what it computes again from saved-tensor hooks, so that its memory cannot be measured.
    """

    @staticmethod
    def forward(ctx: Any, modules: nn.Sequential, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.modules, ctx.parameters, kind = modules, parameters, x.device.type
        ctx.autocast = torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        return modules(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.saved_tensors[0].detach().requires_grad_(ctx.needs_input_grad[1])
        wanted = [p for p, needed in zip((x, *ctx.parameters), ctx.needs_input_grad[1:], strict=True) if needed]
        with torch.enable_grad(), ctx.autocast, statistics_kept(ctx.modules):
            answer = ctx.modules(x)
        found = iter(torch.autograd.grad(answer, wanted, grads[0]))
        return None, *(next(found) if needed else None for needed in ctx.needs_input_grad[1:])


class Recomputing(Interpreter):
    """Runs the graph of a block, keeping of its pieces only what goes into them.

    Args:
        layers: A block of :func:`~lightning_ff.blocks.partition`.
    """

    def __init__(self, layers: GraphModule) -> None:
        super().__init__(layers)
        self.layers = layers
        self.pieces = pieces(layers)

    def run_node(self, n: Node) -> Any:
        """Run a node; one that begins a piece runs all of it."""
        chain = self.pieces.get(n)
        if chain is None:
            return super().run_node(n)
        modules = nn.Sequential(*(self.layers.get_submodule(str(node.target)) for node in (n, *chain)))
        modules.training = self.layers.training
        (x,), _ = self.fetch_args_kwargs_from_env(n)
        self.env.update(dict.fromkeys(chain))
        self.env[chain[-1]] = _Again.apply(modules, x, *modules.parameters())
        return None  # the nodes of the chain have their values already and are not run


def check_graph(layers: nn.Module) -> None:
    """Check that the graph of a block's layers is known.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(layers, GraphModule):
        raise TypeError(
            f"recompute=True needs layers whose graph is known, not {type(layers).__name__}: cut the network by "
            "lightning_ff.blocks.partition"
        )


def recomputing(layers: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """Output of a block's layers, whose backward computes the inside of every piece again."""
    return Recomputing(cast(GraphModule, layers)).run(*inputs)
