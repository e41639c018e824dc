"""Where a model is cut: places in its graph, for every way of cutting that does not name modules.

A block holds one weight layer at least. Behind which operation between two weight layers the cut lies is decided by
`_between`, the same for every way of cutting.
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
        weights: Places of the weight layers that count.
        allowed: Places where a cut may lie.
        whole: Spans that no cut may divide.
        modules: Those of them that take nothing from their surroundings: a cut lies right behind them.
    """

    weights: list[int]
    allowed: set[int]
    whole: Sequence[Span] = ()
    modules: Sequence[Span] = ()


def finest(flow: Flow) -> list[int]:
    """Every articulation point, with a weight layer in every block."""
    return _cut(flow, _Rule(flow.weights, set(flow.joints)))


def blocks(flow: Flow) -> list[int]:
    """Articulation points outside residual modules and outside the head."""
    modules = _residual_modules(flow)
    return _cut(flow, _Rule(flow.weights, set(flow.joints), modules + _head(flow, modules), modules))


def layers(flow: Flow) -> list[int]:
    """One block per weight layer, gates such as squeeze-excitation left with the layer in front of them."""
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
    """The place for a cut between the weight layers at two places, None if there is none.

    Where the fewest tensors cross. Among several such places: right in front of a residual module, else right behind
    one, else as late as possible, since normalisation, activation and pooling belong to the weight layer before them,
    but in front of what belongs to the next one.
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
    """Whether an operation shares more containers with the weight layer behind it, or makes a vector for it."""
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
    """Places of operations that join branches: more than one tensor goes in."""
    return [p for p, node in enumerate(flow.nodes) if flow.kinds[node] == "tensor" and len(flow.inputs(node)) > 1]


def _residual_modules(flow: Flow) -> list[Span]:
    """Calls of the module classes, used more than once below the model itself, whose own forward joins branches."""
    model = flow.traced.model
    kinds = {type(model.get_submodule(flow.nodes[p].meta["calls"][-1].path)) for p in _merges(flow)} - {type(model)}
    calls = {call: type(model.get_submodule(call.path)) for call in flow.spans if call.path}
    repeated = {kind for kind in kinds if len({call.path for call, k in calls.items() if k is kind}) > 1}
    return [flow.spans[call] for call, kind in calls.items() if kind in repeated]


def _head(flow: Flow, modules: Sequence[Span]) -> list[Span]:
    """The last container, if its weight layers come after all others and behind a pooling or flattening."""
    merges = _merges(flow)
    for first, last in sorted(span for call, span in flow.spans.items() if call.path):
        own = [place for place in flow.weights if first <= place <= last]
        before = [place for place in flow.weights if place < first]
        if not own or own[-1] != flow.weights[-1] or not before:
            continue
        between = range(before[-1] + 1, own[0])
        plain = all(isinstance(flow.traced.module(flow.nodes[p]), nn.Linear) for p in own)
        joined = any(first <= place <= last for place in (*merges, *(m[0] for m in modules)))
        if plain and not joined and any(_makes_vector(flow, place) for place in between):
            return [(first, last)]
    return []


def _makes_vector(flow: Flow, place: int) -> bool:
    return flow.kinds[flow.nodes[place]] == "tensor" and is_vectorizing(flow.traced, flow.nodes[place])


def _gates(flow: Flow) -> list[Span]:
    """Calls of modules below the model itself that multiply their own input with what they make of it."""
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
    """Divide a row of sizes into consecutive groups: the largest as small as possible, then as even as possible.

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
    sums: Sequence[float], count: int, join: Callable[[float, float], float], cost: Callable[[float], float]
) -> tuple[float, list[int]]:
    """Least cost of `count` groups, by dynamic programming over the unit with which each ends."""
    units = len(sums) - 1
    best: list[tuple[float, list[int]]] = [(cost(sums[end]), []) for end in range(units + 1)]
    for groups in range(2, count + 1):
        best = [
            _cheapest(
                (join(best[k][0], cost(sums[end] - sums[k])), [*best[k][1], k - 1]) for k in range(groups - 1, end)
            )
            for end in range(units + 1)
        ]
    return best[units]


def _cheapest(options: Iterable[tuple[float, list[int]]]) -> tuple[float, list[int]]:
    return min(options, default=(float("inf"), []))
