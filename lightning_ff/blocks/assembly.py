"""Modules from parts of a traced model's graph, which share its parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node, Tracer
from torch.fx.node import map_arg

from lightning_ff._torch import share_members
from lightning_ff.blocks.flow import Flow
from lightning_ff.blocks.ops import gives_batch_size, is_fresh, is_opaque, written
from lightning_ff.blocks.tracing import MODEL, Traced, path


class Reader(Tracer):
    """Traces the code of a block when it is unpickled."""

    proxy_buffer_attributes = True


def as_one(inputs: tuple[Any, ...]) -> Any:
    """Several arguments as the single argument, a tuple, of the model's own module."""
    return inputs[0] if len(inputs) == 1 else tuple(inputs)


def duplicate(value: Any) -> Any:
    """A copy of a tensor, or of every tensor in a tuple."""
    return value.clone() if isinstance(value, Tensor) else type(value)(duplicate(entry) for entry in value)


class _Piece:
    """The graph of one block under construction."""

    def __init__(self, flow: Flow, received: Sequence[Node], nodes: Sequence[Node]) -> None:
        self.flow = flow
        self.traced = flow.traced
        self.received = list(received)
        self.graph = Graph(tracer_cls=Reader)
        self.made = self._placeholders()
        for node in self._overwritten(nodes):
            self.made[node] = self._call(duplicate, self.made[node])
        for node in nodes:
            if node.op != "output" and flow.kinds[node] != "derived":
                self._add(node)

    def _placeholders(self) -> dict[Node, Node]:
        if len(self.received) == 1 and is_opaque(self.traced, self.received[0]):
            return {self.received[0]: self._call(as_one, self.graph.placeholder("*inputs"))}
        names = ["x", *(f"skip{number}" for number in range(1, len(self.received)))]
        return {node: self.graph.placeholder(name) for node, name in zip(self.received, names, strict=True)}

    def _call(self, function: Any, argument: Node) -> Node:
        made = self.graph.call_function(function, (argument,))
        made.meta["is_wrapped"] = True  # not traced into when the block is unpickled
        return made

    def _overwritten(self, nodes: Iterable[Node]) -> list[Node]:
        """Received values that the nodes may overwrite in place; they are activations of the block before."""
        pending = [source for node in nodes for source in written(self.traced, node)]
        seen = set()
        while pending:
            node = pending.pop()
            if node not in seen:
                seen.add(node)
                if node not in self.received and not is_fresh(self.traced, node):
                    pending += self.flow.inputs(node)
        return [node for node in self.received if node in seen]

    def get(self, node: Node) -> Node:
        """The value of a node in this block; derived values are added to the graph on demand."""
        if node not in self.made:
            source = gives_batch_size(self.traced, node)
            if source is not None and source in self.flow.main and source not in self.made:
                self.made[node] = self._read_from_input(node)
            else:
                self._add(node)
        return self.made[node]

    def _read_from_input(self, node: Node) -> Node:
        main = self.made[self.received[0]]
        if node.target is getattr:
            return self.graph.call_function(getattr, (main, "device"))
        return self.graph.call_method("size", (main, 0))

    def _add(self, node: Node) -> None:
        target = path(node) or MODEL if node.op in ("call_module", "get_attr") else node.target
        args, kwargs = map_arg(node.args, self.get), map_arg(node.kwargs, self.get)
        made = self.graph.create_node(node.op, target, args, kwargs, node.name.removeprefix(MODEL + "_"))
        made.meta = copy.copy(node.meta)
        self.made[node] = made


def assemble(flow: Flow, cuts: Sequence[int]) -> list[GraphModule]:
    """One module per piece between two cuts.

    Args:
        flow: The traced model.
        cuts: Indices of the nodes after which to cut, in order.

    Returns:
        Modules that together compute the model's output; each takes the output of the one before, a tensor or the
        entries of a tuple.
    """
    start, end = flow.index[flow.input], len(flow.nodes) - 1
    used: set[nn.Module] = set()
    root = _root_module(flow.traced)
    blocks = []
    for first, last in pairwise([start, *cuts, end]):
        received = flow.live(first) if first > start else [flow.input]
        piece = _Piece(flow, received, flow.nodes[first + 1 : last + 1])
        piece.graph.output(_outputs_of(flow, piece, last))
        block = GraphModule(root, piece.graph, class_name="Block")
        _copy_shared_modules(block, used)
        for part in block.modules():
            if type(part) is nn.Module:  # a container of submodules only
                part.training = block.training
        blocks.append(block)
    return blocks


def _outputs_of(flow: Flow, piece: _Piece, last: int) -> Any:
    if flow.nodes[last].op == "output":
        return map_arg(flow.nodes[last].args[0], piece.get)
    entries = tuple(piece.get(node) for node in flow.live(last))
    return entries if len(entries) > 1 else entries[0]


def _root_module(traced: Traced) -> nn.Module:
    """A module with the model's attributes and the extras, without changes to the model."""
    root = nn.Module()
    root.training = traced.model.training
    root.add_module(MODEL, traced.model)
    share_members(root, traced.model)
    for name, value in vars(traced.model).items():
        if isinstance(value, Tensor):
            root.register_buffer(name, value, persistent=False)
    for name, value in traced.extras.items():
        if isinstance(value, Tensor):
            root.register_buffer(name, value.detach(), persistent=False)
        else:
            setattr(root, name, value)
    return root


def _copy_shared_modules(block: GraphModule, used: set[nn.Module]) -> None:
    """Copy stateless modules of a block that an earlier block also calls, so that each has its own mode."""
    for name in {str(node.target) for node in block.graph.nodes if node.op == "call_module"}:
        module = block.get_submodule(name)
        if module in used and not any(True for _ in module.parameters()) and not any(True for _ in module.buffers()):
            owner, _, field = name.rpartition(".")
            setattr(block.get_submodule(owner), field, copy.copy(module))
        used.add(module)
