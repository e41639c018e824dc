"""Partition of any module into blocks that share its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, overload

from torch import Tensor, nn
from torch.fx import GraphModule

from lightning_ff.blocks import cuts as ways
from lightning_ff.blocks.assembly import assemble
from lightning_ff.blocks.flow import Flow
from lightning_ff.blocks.local_block import Activation
from lightning_ff.blocks.measure import Measured, measure
from lightning_ff.blocks.named import behind, describe
from lightning_ff.blocks.partition_checks import Balance, Cuts, check_arguments, check_parameters
from lightning_ff.blocks.row import check_row
from lightning_ff.blocks.tracing import Untraceable, trace
from lightning_ff.blocks.verify import verify


class Partition(nn.Module):
    """The blocks of a model, in order; `repr` is a table.

    Attributes:
        names: Name of each block, from its weight layers: "layer1.0", "features.12", "fc".
        modules_of: The modules and functions in each block; a container if all of it is in the block.
        measured: Shapes and memory of each block, None without `input_shape`.
        unused: Names of the model's parameters that its forward does not use.
    """

    def __init__(
        self,
        blocks: Sequence[GraphModule],
        names: Sequence[str],
        modules_of: Sequence[Sequence[str]],
        measured: Sequence[Measured] | None = None,
        unused: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.names = list(names)
        self.modules_of = [list(of_block) for of_block in modules_of]
        self.measured = None if measured is None else list(measured)
        self.unused = list(unused)
        self.training = blocks[0].training

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.blocks)

    @overload
    def __getitem__(self, index: int) -> nn.Module: ...
    @overload
    def __getitem__(self, index: slice) -> list[nn.Module]: ...
    def __getitem__(self, index: int | slice) -> nn.Module | list[nn.Module]:
        return list(self.blocks)[index]

    def forward(self, x: Activation) -> Any:
        """Run the blocks one after another; returns the model's output."""
        for block in self.blocks:
            x = block(x) if isinstance(x, Tensor) else block(*x)
        return x

    def __repr__(self) -> str:
        return _table(self)


def partition(
    model: nn.Module,
    cuts: Cuts | int | Sequence[str] = "blocks",
    input_shape: Sequence[int] | None = None,
    balance: Balance = "parameters",
) -> Partition:
    """Cut any model into blocks that share its parameters and together compute exactly its output.

    Blocks pass a tensor `(N, ...)`, or a tuple of tensors: the activation, then skips; a block takes the entries as
    several arguments. The model itself is not changed: it keeps its `state_dict` keys, and training the blocks trains
    it. A block has its own `train()` and `eval()` mode.

    The model is recorded with `torch.fx`, for any batch size. Modules without submodules, and modules whose own code
    cannot be recorded, are kept whole. A block that would overwrite its input works on a copy.

    Args:
        model: Its forward takes one input `(N, ...)`; further arguments keep their defaults.
        cuts: Where to cut; every block has a weight layer, except with paths of modules.

            * "blocks": where exactly one tensor is alive, outside residual modules (all modules of a class whose
              forward combines branches, used more than once) and outside the head (the last linear layers).
            * "finest": everywhere where exactly one tensor is alive.
            * "layers": between any two weight layers, with skips passed along with the activation; squeeze-excitation
              stays with the layer before it.
            * "stages": "blocks", merged as long as the size of the map is the same; needs `input_shape`.
            * an int: N blocks from "finest", as equal as possible by `balance`.
            * paths of modules such as `["maxpool", "layer1.1"]`: each ends a block; the rest is the last block.
        input_shape: Shape of one input without the batch axis; adds shapes and memory to the table, and compares the
            blocks with the model on an example. Without it, every tensor must have the batch as its first axis.
        balance: Quantity that an int balances: "parameters", or "activations", the bytes saved for backward (needs
            `input_shape`).

    Returns:
        The blocks, in order.

    Raises:
        TypeError: `model` is not a module.
        ValueError: an argument does not fit, the model cannot be traced, or two blocks would share a parameter.

    Example::

        >>> import torch
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> blocks = partition(net, input_shape=(2, 2, 2))
        >>> print(blocks)
        block  modules  parameters  output  MiB saved for backward per image
            0  0, 1, 2          36  (4,)                              0.0000
            1  3                10  (2,)                              0.0000
        2 blocks, 46 parameters
        >>> x = torch.ones(5, 2, 2, 2)
        >>> torch.equal(blocks[1](blocks[0](x)), net(x))
        True
        >>> blocks[1].get_parameter("3.weight") is net[3].weight
        True
    """
    check_arguments(model, cuts, input_shape, balance)
    flow = _flow(model, cuts, input_shape)
    places = _places(flow, cuts, input_shape, balance)
    blocks = assemble(flow, places)
    names, modules_of = zip(*describe(flow, places), strict=True)
    unused = check_parameters(model, blocks, names)
    measured = None if input_shape is None else measure(model, names, blocks, input_shape)
    if input_shape is not None:
        verify(model, blocks, input_shape)
    return Partition(blocks, names, modules_of, measured, unused)


def _flow(model: nn.Module, cuts: Any, input_shape: Sequence[int] | None) -> Flow:
    """The recorded model; if its own forward cannot be recorded, the named modules one after another."""
    try:
        return Flow(trace(model))
    except Untraceable:
        if isinstance(cuts, str | int) or input_shape is None:
            raise
    check_row(model, cuts, input_shape)
    return Flow(trace(model, chain=list(cuts)))


def _places(flow: Flow, cuts: Any, input_shape: Sequence[int] | None, balance: str) -> list[int]:
    if isinstance(cuts, int):
        return _balanced(flow, cuts, input_shape, balance)
    if cuts == "stages":
        assert input_shape is not None
        return _stages(flow, input_shape)
    if isinstance(cuts, str):
        return {"blocks": ways.blocks, "finest": ways.finest, "layers": ways.layers}[cuts](flow)
    return behind(flow, cuts)


def _measured(flow: Flow, places: Sequence[int], input_shape: Sequence[int]) -> list[Measured]:
    names = [name for name, _ in describe(flow, places)]
    return measure(flow.traced.model, names, assemble(flow, places), input_shape)


def _stages(flow: Flow, input_shape: Sequence[int]) -> list[int]:
    places = ways.blocks(flow)
    positions = [result.positions for result in _measured(flow, places, input_shape)]
    return [place for place, (a, b) in zip(places, pairwise(positions), strict=True) if a != b]


def _balanced(flow: Flow, count: int, input_shape: Sequence[int] | None, balance: str) -> list[int]:
    places = ways.finest(flow)
    if count > len(places) + 1:
        raise ValueError(
            f"cuts={count}: the model has {len(places)} places where exactly one tensor is alive between two weight "
            f"layers, so at most {len(places) + 1} blocks; cuts='layers' cuts across skips too"
        )
    if balance == "parameters":
        sizes = [float(sum(p.numel() for p in block.parameters())) for block in assemble(flow, places)]
    else:
        assert input_shape is not None
        sizes = [result.saved for result in _measured(flow, places, input_shape)]
    return [places[end] for end in ways.balanced(sizes, count)]


def _table(blocks: Partition) -> str:
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
    columns = [
        ["block", *map(str, range(len(blocks)))],
        ["modules", *map(_short, blocks.modules_of)],
        ["parameters", *(f"{size:,}" for size in sizes)],
    ]
    if blocks.measured is not None:
        shapes = [" + ".join(str(tuple(shape)) for shape in result.shapes) for result in blocks.measured]
        columns.append(["output", *shapes])
        saved = [f"{result.saved / 2**20:.4f}" for result in blocks.measured]
        columns.append(["MiB saved for backward per image", *saved])
    widths = [max(map(len, column)) for column in columns]
    left = (1, 3)  # text, beside numbers
    rows = [
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in zip(*columns, strict=True)
    ]
    rows.append(f"{len(blocks)} blocks, {sum(sizes):,} parameters")
    if blocks.unused:
        rows.append(f"not used by the forward: {_short(blocks.unused)}")
    return "\n".join(row.rstrip() for row in rows)


def _short(names: Sequence[str], most: int = 6) -> str:
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 2])}, ... {names[-1]} ({len(names)})"
