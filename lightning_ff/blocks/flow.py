"""Liveness of the values in a traced model, and its weight layers."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import Literal

from torch.fx import Node

from lightning_ff.blocks.ops import (
    gives_batch_size,
    gives_many,
    gives_shape,
    in_place,
    is_check,
    is_random,
    is_spatial,
    is_weighted,
    target_of,
)
from lightning_ff.blocks.tracing import Call, Traced

Kind = Literal["tensor", "derived", "effect"]


class Flow:
    """A traced model in execution order; a `place` is the index of a node after which the model could be cut.

    Values that depend only on the model's own tensors and on shapes are computed again in every block that needs them,
    so that only tensors cross a cut. The batch size and the device are read from the received tensor.

    Attributes:
        nodes: All nodes.
        kinds: "tensor" for values computed from the input, "derived" for others, "effect" for nodes without a value.
        alive: Number of tensors that are alive after each node.
        joints: Articulation points: places where exactly one tensor is alive, the one just computed.
        weights: Places of the weight layers.
        spans: First and last place of every call of a traced module.
    """

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.nodes: list[Node] = list(traced.graph.nodes)
        self.index = {node: place for place, node in enumerate(self.nodes)}
        self._follow_writes()
        self.kinds: dict[Node, Kind] = {}
        for node in self.nodes:
            self.kinds[node] = self._kind_of(node)
        self.input = next(node for node in self.nodes if node.op == "placeholder")
        self.main = {self.input}
        self._find_articulation_points()
        while (main := {self.input, *(self.nodes[place] for place in self.joints)}) != self.main:
            self.main = main
            self._find_articulation_points()
        self.weights = [p for p, n in enumerate(self.nodes) if self.kinds[n] == "tensor" and is_weighted(traced, n)]
        for place in self.weights:
            self.nodes[place].meta["spatial"] = is_spatial(traced, self.nodes[place])
        self.spans = self._spans()

    def _follow_writes(self) -> None:
        """After an in-place operation, replace uses of its overwritten input by its result."""
        for node in self.nodes:
            source = target_of(node)
            if in_place(self.traced, node) and source is not None:
                source.replace_all_uses_with(node, delete_user_cb=partial(self._is_later, node))

    def _is_later(self, node: Node, other: Node) -> bool:
        return self.index[other] > self.index[node]

    def _kind_of(self, node: Node) -> Kind:
        if node.op == "output" or is_check(node) or (not node.users and in_place(self.traced, node)):
            return "effect"
        if node.op in ("placeholder", "get_attr"):
            return "tensor" if node.op == "placeholder" else "derived"
        if is_random(self.traced, node):
            return "tensor"
        if gives_shape(self.traced, node):
            return "derived"
        return "derived" if all(self.kinds[s] == "derived" for s in node.all_input_nodes) else "tensor"

    def _find_articulation_points(self) -> None:
        """Find the last use of every tensor, and the articulation points."""
        self._resolved: dict[Node, set[Node]] = {}
        self.last: dict[Node, int] = {}
        for place, node in enumerate(self.nodes):
            if self.kinds[node] != "derived":
                for source in self.needs(node):
                    self.last[source] = place
        change = [0] * (len(self.nodes) + 1)
        for node, last in self.last.items():
            change[self.index[node]] += 1
            change[last] -= 1
        self.alive = list(accumulate(change))
        self.joints = [p for p in range(len(self.nodes)) if self.alive[p] == 1 and self.can_end(p)]

    def needs(self, node: Node) -> set[Node]:
        """The tensors that are needed to run a node, directly or for its derived inputs."""
        return {tensor for source in node.all_input_nodes for tensor in self._resolve(source)}

    def _resolve(self, node: Node) -> set[Node]:
        if self.kinds[node] != "derived":
            return {node}
        if node not in self._resolved:
            self._resolved[node] = set() if gives_batch_size(self.traced, node) in self.main else self.needs(node)
        return self._resolved[node]

    def live(self, place: int) -> list[Node]:
        """The tensors that are alive after a place: the one computed last, then the others in execution order."""
        found = [n for n, last in self.last.items() if self.index[n] <= place < last]
        found.sort(key=self.index.__getitem__)
        return found[-1:] + found[:-1]

    def can_end(self, place: int) -> bool:
        """Whether a block could end with this node: it is a single tensor that is used later."""
        node = self.nodes[place]
        return self.kinds[node] == "tensor" and self.last.get(node, -1) > place and not gives_many(node)

    def inputs(self, node: Node) -> list[Node]:
        """The tensors among the inputs of a node."""
        return [source for source in node.all_input_nodes if self.kinds[source] == "tensor"]

    def _spans(self) -> dict[Call, tuple[int, int]]:
        spans: dict[Call, tuple[int, int]] = {}
        for place, node in enumerate(self.nodes):
            if self.kinds[node] == "tensor" and node.op != "placeholder":
                for call in node.meta["calls"]:
                    spans[call] = (spans.get(call, (place, place))[0], place)
        return spans
