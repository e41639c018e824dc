"""A dry run of blocks: output shapes, and the memory that each block saves for its backward."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.fx import GraphModule, Interpreter, Node

from lightning_ff._torch import storage_key
from lightning_ff.blocks.local_block import Activation
from lightning_ff.blocks.tracing import untouched

BATCH = 2  # batch norm in training raises for a single value per channel


class Measured(NamedTuple):
    """Results of a dry run of a block.

    Attributes:
        shapes: Shapes of its outputs, without the batch axis.
        saved: Bytes that autograd saves per image, without parameters and buffers.
        positions: Number of positions in the output map of the block's last weight layer, 0 for a vector.
    """

    shapes: tuple[torch.Size, ...]
    saved: float
    positions: int | None


def example(model: nn.Module, input_shape: Sequence[int], fill: Callable[..., Tensor] = torch.zeros) -> Tensor:
    """A batch of two inputs of the model's dtype, on its device; integers if the model runs only on integers."""
    first = next(model.parameters(), torch.empty(0))
    x = fill(BATCH, *input_shape, device=first.device, dtype=first.dtype if first.is_floating_point() else None)
    embeds = any(isinstance(part, (nn.Embedding, nn.EmbeddingBag)) for part in model.modules())
    return x.long() if embeds and not _runs(model, x) and _runs(model, x.long()) else x


def _runs(model: nn.Module, x: Tensor) -> bool:
    """Whether a model runs on an input."""
    with untouched(model), torch.no_grad():
        try:
            model.eval()(x)
        except Exception:
            return False
    return True


def measure(
    model: nn.Module, names: Sequence[str], blocks: Sequence[GraphModule], input_shape: Sequence[int]
) -> list[Measured]:
    """Run blocks in training mode, one after another; model and random state are restored.

    Raises:
        ValueError: a block cannot take its input, or does not return tensors `(N, ...)`.
    """
    with untouched(model, *blocks), torch.enable_grad():
        x: Any = example(model, input_shape)
        found = []
        for number, (name, block) in enumerate(zip(names, blocks, strict=True)):
            title = f"block {number} ({name})"
            block.train()
            h, saved, positions = _run(block, x, title, tuple(input_shape))
            if block is not blocks[-1]:
                _check(h, title)
            entries = [entry for entry in ((h,) if isinstance(h, Tensor) else h) if isinstance(entry, Tensor)]
            found.append(Measured(tuple(entry.shape[1:] for entry in entries), saved / BATCH, positions))
            x = tuple(entry.detach() for entry in entries)
    return found


def _run(block: GraphModule, x: Activation, title: str, input_shape: tuple[int, ...]) -> tuple[Any, int, int | None]:
    """Output of a block, bytes that autograd saves for it, and the positions of its last weight layer."""
    inputs = (x,) if isinstance(x, Tensor) else x
    resident = {storage_key(t) for t in (*block.parameters(), *block.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if (key := storage_key(tensor)) not in resident:
            saved[key] = tensor.untyped_storage().nbytes()
        return tensor

    interpreter = _PositionsInterpreter(block)
    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            h = interpreter.run(*inputs)
    except Exception as error:
        shapes = " and ".join(str(tuple(entry.shape[1:])) for entry in inputs)
        reason = re.sub(r" but got Proxy\(\w+\)", "", str(error))  # from a recorded assertion of the model
        raise ValueError(f"input_shape={input_shape} does not fit: {title}, which gets {shapes}: {reason}") from error
    return h, sum(saved.values()), interpreter.positions


class _PositionsInterpreter(Interpreter):
    """Runs a block node by node, and records the positions in the output of its last weight layer."""

    def __init__(self, block: GraphModule) -> None:
        super().__init__(block)
        self.extra_traceback = False
        self.positions: int | None = None

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if "spatial" in n.meta and isinstance(value, Tensor):
            grid = value.shape[2:] if n.meta["spatial"] else value.shape[1:-1]
            self.positions = grid.numel() if grid else 0
        return value


def _check(h: Any, title: str) -> None:
    """Check that an output can be the input of the next block: a tensor `(N, ...)` or a tuple of such."""
    for entry in (h,) if isinstance(h, Tensor) else h if isinstance(h, tuple) else [h]:
        if not isinstance(entry, Tensor):
            raise ValueError(
                f"{title} hands over {type(entry).__name__} in {type(h).__name__}; a tensor or a tuple of tensors can "
                "pass between blocks: cut elsewhere, cuts=[...] names the modules that end a block"
            )
        if not entry.dim() or len(entry) != BATCH:
            raise ValueError(
                f"{title} hands over a tensor of shape {tuple(entry.shape)} for {BATCH} inputs, whose first axis is "
                "not the batch: cut elsewhere, cuts=[...] names the modules that end a block"
            )
