"""Cuts after named modules, and the names of blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import pairwise

from torch import nn
from torch.fx import Node

from lightning_ff.blocks.flow import Flow
from lightning_ff.blocks.ops import matrices, name_of
from lightning_ff.blocks.tracing import Call, path


def behind(flow: Flow, paths: Sequence[str]) -> list[int]:
    """Places after named modules, where exactly one tensor must be alive; the end of the model needs no cut.

    Raises:
        ValueError: a path is unknown, its module does not run exactly once, more than one tensor is alive after it, or
            two modules end at the same place.
    """
    ends = _ends(flow)
    found: dict[int, str] = {}
    for name in paths:
        place = _end_of(flow, ends, name)
        if place in found:
            raise ValueError(f"cuts: {found[place]!r} and {name!r} end at the same place; name one of them")
        found[place] = name
    last = max(place for place, node in enumerate(flow.nodes) if flow.kinds[node] == "tensor")
    return sorted(place for place in found if place < last)


def _ends(flow: Flow) -> dict[str, list[int]]:
    """Places where the calls of every module end."""
    ends: dict[str, list[int]] = {}
    for call, (_, last) in flow.spans.items():
        ends.setdefault(call.path, []).append(last)
    for place, node in enumerate(flow.nodes):
        if node.op == "call_module" and flow.kinds[node] == "tensor":
            ends.setdefault(path(node), []).append(place)
    ends.pop("", None)
    return ends


def _end_of(flow: Flow, ends: dict[str, list[int]], name: str) -> int:
    if name not in ends:
        raise ValueError(f"cuts: {_why_not_found(flow, ends, name)}")
    if len(ends[name]) > 1:
        raise ValueError(f"cuts: {name!r} runs {len(ends[name])} times; name a module that runs once")
    place = ends[name][0]
    if flow.alive[place] != 1:
        crossing = ", ".join(label(flow, node) for node in flow.live(place)) or "nothing"
        suggestions = _suggestions(flow, ends, name)
        raise ValueError(
            f"cuts: behind {name!r} not one tensor is alive but {flow.alive[place]} ({crossing}); choose one of "
            f"{suggestions}, or cuts='layers', which hands over tuples"
        )
    return place


def _why_not_found(flow: Flow, ends: dict[str, list[int]], name: str) -> str:
    model = flow.traced.model
    if name not in dict(model.named_modules()):
        return f"the model has no module {name!r}; choose one of {_suggestions(flow, ends, name)}"
    whole = [path(node) for node in flow.nodes if node.op == "call_module"]
    kept = next((p for p in whole if not p or name.startswith(p + ".")), None)
    if kept is None:
        return f"{name!r} does not run in the model's forward; choose one of {_suggestions(flow, ends, name)}"
    inside = f"{name!r} lies inside {repr(kept) if kept else 'the model itself'}, which is kept whole"
    others = f"; choose one of {_suggestions(flow, ends, name)}" if kept else ""
    return inside + why_whole(model.get_submodule(kept)) + others


def why_whole(module: nn.Module) -> str:
    """Part of a message: reason and remedy for a module that is kept whole as one of torch's own."""
    cls = type(module).__name__
    if not type(module).__module__.startswith("torch."):
        return ""
    remedy = ""
    if isinstance(inner := getattr(module, "module", None), nn.Module):
        remedy = f": give the {type(inner).__name__} that {cls} wraps, its attribute `module`"
    elif isinstance(getattr(module, "layers", None), nn.ModuleList):
        remedy = f": put its layers into the model in place of {cls}, such as nn.Sequential(*encoder.layers)"
    return f" as torch's own modules are{remedy}"


def _suggestions(flow: Flow, ends: dict[str, list[int]], name: str) -> list[str]:
    """Modules after which one can cut: those that contain the named one, then those with similar names."""
    good = [p for p, places in ends.items() if len(places) == 1 and flow.alive[places[0]] == 1 and p != name]
    containing = [p for p in good if name.startswith(p + ".")]
    similar = get_close_matches(name, good, n=3, cutoff=0.0)
    return list(dict.fromkeys([*sorted(containing, key=len, reverse=True), *similar]))[:3]


def label(flow: Flow, node: Node, whole: Iterable[Call] = ()) -> str:
    """Readable name of a node: the largest module of `whole` that it is part of, else its own name."""
    containing = next((call.path for call in node.meta["calls"] if call in whole), None)
    if containing:
        return containing
    if node.op == "call_module":
        return path(node) or type(flow.traced.model).__name__
    read = [path(source) for source in matrices(flow.traced, node)]
    if "spatial" in node.meta and read:
        return read[0]
    return "input" if node.op == "placeholder" else f"{name_of(flow.traced, node)}()"


def describe(flow: Flow, cuts: Sequence[int]) -> list[tuple[str, list[str]]]:
    """Name of every block, from its weight layers, and its modules, listed by as few paths as possible."""
    described = []
    for first, last in pairwise([0, *cuts, len(flow.nodes) - 1]):
        nodes = [n for n in flow.nodes[first + 1 : last + 1] if flow.kinds[n] == "tensor" and n.op != "placeholder"]
        whole = {call for call, span in flow.spans.items() if call.path and first < span[0] and span[1] <= last}
        labels = list(dict.fromkeys(label(flow, node, whole) for node in nodes))
        weighted = list(dict.fromkeys(label(flow, node, whole) for node in nodes if "spatial" in node.meta)) or labels
        ends = list(dict.fromkeys([*weighted[:1], *weighted[-1:]])) or ["input"]
        described.append(("..".join(ends), labels))
    return described
