"""Cut points in the graph of a model, for every way of cutting that does not name modules.

A cut point, here `place`, is the index of the node after which the model is cut. A block has at least one weight layer.
The place between two weight layers is chosen by `_between`, the same for every way of cutting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import nn

from lightning_ff.blocks.flow import Flow
from lightning_ff.blocks.ops import is_product, is_vectorizing

Span = tuple[int, int]


class _Rule(NamedTuple):
    """A way of cutting.

    Attributes:
        weights: Places of the weight layers that are separated.
        allowed: Places where a cut is possible.
        whole: Spans that no cut may divide.
        modules: Spans of modules that are cut directly before or after.
    """

    weights: list[int]
    allowed: set[int]
    whole: Sequence[Span] = ()
    modules: Sequence[Span] = ()


def finest(flow: Flow) -> list[int]:
    """Cut at every articulation point, with a weight layer in every block."""
    return _cut(flow, _Rule(flow.weights, set(flow.joints)))


def blocks(flow: Flow) -> list[int]:
    """Cut at articulation points outside residual modules and outside the head."""
    modules = _residual_modules(flow)
    return _cut(flow, _Rule(flow.weights, set(flow.joints), modules + _head(flow, modules), modules))


def layers(flow: Flow) -> list[int]:
    """One block per weight layer; gates such as squeeze-excitation stay with the layer before them."""
    gates = _gates(flow)
    weights = [place for place in flow.weights if not any(first <= place <= last for first, last in gates)]
    allowed = {place for place in range(len(flow.nodes)) if _crossable(flow, place)}
    return _cut(flow, _Rule(weights, allowed, gates))


def _crossable(flow: Flow, place: int) -> bool:
    return flow.can_end(place) and all(flow.can_end(flow.index[n]) or n is flow.input for n in flow.live(place)[1:])


def _cut(flow: Flow, rule: _Rule) -> list[int]:
    free = {place for place in rule.allowed if not any(first <= place < last for first, last in rule.whole)}
    rule = rule._replace(allowed=free)
    found = [_between(flow, rule, a, b) for a, b in pairwise(rule.weights)]
    return [place for place in found if place is not None]


def _between(flow: Flow, rule: _Rule, a: int, b: int) -> int | None:
    """The place for a cut between the weight layers at places `a` and `b`; None if there is none.

    It is a place that the fewest tensors cross. Among several: directly before a residual module, else directly after
    one, else as late as possible, since normalisation, activation and pooling belong to the weight layer before them,
    but before operations that belong to the next weight layer.
    """
    places = [place for place in range(a, b) if place in rule.allowed]
    if not places:
        return None
    fewest = min(flow.alive[place] for place in places)
    places = [place for place in places if flow.alive[place] == fewest]
    if any(a < first <= b for first, _ in rule.modules):
        return places[-1]
    if any(a <= last < b for _, last in rule.modules):
        return places[0]
    bound = next((p for p in range(a + 1, b) if _belongs_to_next(flow, a, p, b)), b)
    return max((place for place in places if place < bound), default=places[0])


def _belongs_to_next(flow: Flow, a: int, place: int, b: int) -> bool:
    """Whether an operation shares more containers with the weight layer after it, or makes a vector for it."""
    node = flow.nodes[place]
    if flow.kinds[node] != "tensor":
        return False
    if _shared(flow, place, b) > _shared(flow, place, a):
        return True
    return isinstance(flow.traced.module(flow.nodes[b]), nn.Linear) and is_vectorizing(flow.traced, node)


def _shared(flow: Flow, a: int, b: int) -> int:
    pairs = zip(flow.nodes[a].meta["calls"], flow.nodes[b].meta["calls"], strict=False)
    return sum(x == y for x, y in pairs)


def _merges(flow: Flow) -> list[int]:
    """Places of operations that combine branches, which have more than one input tensor."""
    return [p for p, node in enumerate(flow.nodes) if flow.kinds[node] == "tensor" and len(flow.inputs(node)) > 1]


def _residual_modules(flow: Flow) -> list[Span]:
    """Spans of modules whose own forward combines branches and whose class is used more than once in the model."""
    model = flow.traced.model
    classes = {type(model.get_submodule(flow.nodes[p].meta["calls"][-1].path)) for p in _merges(flow)} - {type(model)}
    calls = {call: type(model.get_submodule(call.path)) for call in flow.spans if call.path}
    repeated = {cls for cls in classes if len({call.path for call, k in calls.items() if k is cls}) > 1}
    return [flow.spans[call] for call, cls in calls.items() if cls in repeated]


def _head(flow: Flow, modules: Sequence[Span]) -> list[Span]:
    """Span of the last container, if its weight layers follow all others and a pooling or flattening."""
    merges = _merges(flow)
    for first, last in sorted(span for call, span in flow.spans.items() if call.path):
        own = [place for place in flow.weights if first <= place <= last]
        before = [place for place in flow.weights if place < first]
        if not own or own[-1] != flow.weights[-1] or not before:
            continue
        between = range(before[-1] + 1, own[0])
        linear = all(isinstance(flow.traced.module(flow.nodes[p]), nn.Linear) for p in own)
        branches = any(first <= place <= last for place in (*merges, *(m[0] for m in modules)))
        if linear and not branches and any(_makes_vector(flow, place) for place in between):
            return [(first, last)]
    return []


def _makes_vector(flow: Flow, place: int) -> bool:
    return flow.kinds[flow.nodes[place]] == "tensor" and is_vectorizing(flow.traced, flow.nodes[place])


def _gates(flow: Flow) -> list[Span]:
    """Spans of submodules that multiply their input by a function of it."""
    found = []
    for place in _merges(flow):
        node = flow.nodes[place]
        call = node.meta["calls"][-1]
        if call.path and is_product(node):
            first, last = flow.spans[call]
            sides = [flow.index[source] < first for source in flow.inputs(node)]
            if any(sides) and not all(sides):
                found.append((first, last))
    return found


def balanced(sizes: Sequence[float], count: int) -> list[int]:
    """Split sizes into consecutive groups: the largest sum as small as possible, then as even as possible.

    Args:
        sizes: One number per unit, at least `count` of them.
        count: Number of groups.

    Returns:
        Index of the last unit of every group but the last.

    Example::

        >>> balanced([1, 1, 1, 5, 1, 1], 3)
        [2, 3]
    """
    sums = [0.0]
    for size in sizes:
        sums.append(sums[-1] + size)
    largest, _ = _divide(sums, count, max, lambda size: size)
    _, ends = _divide(sums, count, lambda a, b: a + b, lambda size: size**2 if size <= largest else float("inf"))
    return ends


def _divide(
    sums: Sequence[float], count: int, combine: Callable[[float, float], float], cost: Callable[[float], float]
) -> tuple[float, list[int]]:
    """Smallest cost of `count` groups, by dynamic programming over the last unit of each."""
    units = len(sums) - 1
    best: list[tuple[float, list[int]]] = [(cost(sums[end]), []) for end in range(units + 1)]
    for groups in range(2, count + 1):
        best = [
            _cheapest(
                (combine(best[k][0], cost(sums[end] - sums[k])), [*best[k][1], k - 1]) for k in range(groups - 1, end)
            )
            for end in range(units + 1)
        ]
    return best[units]


def _cheapest(options: Iterable[tuple[float, list[int]]]) -> tuple[float, list[int]]:
    return min(options, default=(float("inf"), []))
