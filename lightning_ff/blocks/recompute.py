"""Recomputation in the backward: less memory for more time.

A piece of a block is a convolution or linear layer with the normalisation and activation after it. Only the input of a
piece is saved; its intermediate activations are recomputed in its backward, and freed before that of the next piece.
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
    """Context manager: normalise by batch statistics as in training, without an update of running statistics."""
    tracking = [m for m in module.modules() if isinstance(m, NormBase) and m.track_running_stats]
    for part in tracking:
        part.track_running_stats = False
    try:
        yield
    finally:
        for part in tracking:
            part.track_running_stats = True


def pieces(layers: GraphModule) -> dict[Node, list[Node]]:
    """The nodes after each convolution or linear layer that are recomputed with it, by that layer's node."""
    found = {}
    for node in layers.graph.nodes:
        if _is_module(layers, node, _HEADS):
            chain = [node]
            while len(chain[-1].users) == 1 and _is_module(layers, follower := next(iter(chain[-1].users)), _FOLLOWERS):
                chain.append(follower)
            if len(chain) > 1:
                found[node] = chain[1:]
    return found


def _is_module(layers: GraphModule, node: Node, classes: tuple[type[nn.Module], ...]) -> bool:
    if node.op != "call_module":
        return False
    module = layers.get_submodule(str(node.target))
    # a weight that is computed in every call, such as with spectral norm, would differ in the backward
    computed = isinstance(module, _HEADS) and "weight" not in dict(module.named_parameters(recurse=False))
    return isinstance(module, classes) and not computed


class _Recompute(torch.autograd.Function):
    """Runs modules one after another, saves their input, and runs them again in the backward.

    Parameters are arguments, since the input of a local block requires no gradient. torch's checkpoint is not used, as
    it hides recomputed tensors from saved-tensor hooks, so that its memory cannot be measured.
    """

    @staticmethod
    def forward(ctx: Any, modules: nn.Sequential, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.modules, ctx.parameters, device = modules, parameters, x.device.type
        ctx.autocast = torch.autocast(device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        return modules(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.saved_tensors[0].detach().requires_grad_(ctx.needs_input_grad[1])
        wanted = [p for p, needed in zip((x, *ctx.parameters), ctx.needs_input_grad[1:], strict=True) if needed]
        with torch.enable_grad(), ctx.autocast, statistics_kept(ctx.modules):
            output = ctx.modules(x)
        found = iter(torch.autograd.grad(output, wanted, grads[0]))
        return None, *(next(found) if needed else None for needed in ctx.needs_input_grad[1:])


class Recomputing(Interpreter):
    """Runs the graph of a block, saving only the inputs of its pieces.

    Args:
        layers: A block of :func:`~lightning_ff.blocks.partition`.
    """

    def __init__(self, layers: GraphModule) -> None:
        super().__init__(layers)
        self.layers = layers
        self.pieces = pieces(layers)

    def run_node(self, n: Node) -> Any:
        """Run a node; the first node of a piece runs the whole piece."""
        chain = self.pieces.get(n)
        if chain is None:
            return super().run_node(n)
        modules = nn.Sequential(*(self.layers.get_submodule(str(node.target)) for node in (n, *chain)))
        modules.training = self.layers.training
        (x,), _ = self.fetch_args_kwargs_from_env(n)
        self.env.update(dict.fromkeys(chain))
        self.env[chain[-1]] = _Recompute.apply(modules, x, *modules.parameters())
        return None  # the nodes of the chain have values in `env`, so they are not run


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
    """Output of a block's layers, with recomputation in the backward."""
    return Recomputing(cast(GraphModule, layers)).run(*inputs)
