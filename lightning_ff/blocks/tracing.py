"""One graph of a model, for training and evaluation and any batch size."""

from __future__ import annotations

import dis
import sys
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node, Proxy, Tracer

from lightning_ff._torch import buffers_of
from lightning_ff.blocks.generators import States, have_drawn, restore, states

_RANDOM_CONSTANT = (
    "it draws random numbers of a fixed shape, or by Python's or NumPy's generators, which would be recorded as "
    "constants; draw them like the activation (torch.randn_like), or in a separate module"
)
MODEL = "model"  # attribute of the wrapper that holds the traced model


class Call(NamedTuple):
    """One call of a traced module; the path of the model itself is ""."""

    path: str
    number: int


class Switch(nn.Module):
    """A constant of the forward pass that differs between training and evaluation, such as `self.training`."""

    def __init__(self, train: Any, evaluation: Any) -> None:
        super().__init__()
        self.values = (evaluation, train)

    def forward(self) -> Any:
        return self.values[self.training]


class Traced(NamedTuple):
    """A model's graph; `calls` in a node's meta are the calls that it was recorded in, outermost first.

    Attributes:
        model: The model.
        graph: Its graph; targets of nodes start with "model.", except those of `extras`.
        extras: Targets of nodes outside the model: constants, switches, modules created in the forward.
    """

    model: nn.Module
    graph: Graph
    extras: dict[str, Any]

    def module(self, node: Node) -> nn.Module | None:
        """The module that a node calls."""
        if node.op != "call_module":
            return None
        name = path(node)
        return self.extras[name] if name in self.extras else self.model.get_submodule(name)

    def parameter(self, node: Node) -> nn.Parameter | None:
        """The parameter that a node reads."""
        name = path(node)
        if node.op != "get_attr" or name in self.extras:
            return None
        owner, _, field = name.rpartition(".")
        value = getattr(self.model.get_submodule(owner), field)
        return value if isinstance(value, nn.Parameter) else None


def path(node: Node) -> str:
    """Path in the model of the target of a `call_module` or `get_attr` node."""
    target = str(node.target)
    return "" if target == MODEL else target.removeprefix(MODEL + ".")


@contextmanager
def untouched(*modules: nn.Module) -> Iterator[None]:
    """Context manager: restores attributes, modes and buffers of modules, and the random state.

    Lists, dicts and sets that are attributes keep their entries: a recorded forward would add proxies to them.
    """
    parts = {part: dict(vars(part)) for module in modules for part in module.modules()}
    kept = [(each, copy(each)) for of_part in parts.values() for each in of_part.values() if _collects(each)]
    generators = states(parts)
    buffers = {part: dict(buffers_of(part)) for part in parts}
    values = {b: b.detach().clone() for of_part in buffers.values() for b in of_part.values() if b is not None}
    devices = {p.device.index or 0 for module in modules for p in module.parameters() if p.is_cuda}
    with torch.random.fork_rng(sorted(devices)):
        try:
            yield
        finally:
            for part, attributes in parts.items():
                vars(part).clear()
                vars(part).update(attributes)
                buffers_of(part).update(buffers[part])
            for collection, entries in kept:
                collection.clear()
                collection.extend(entries) if isinstance(collection, list | deque) else collection.update(entries)
            restore(generators)
            with torch.no_grad():
                for buffer, value in values.items():
                    buffer.copy_(value)


def _collects(value: Any) -> bool:
    return type(value) in (list, dict, set, deque)


class _Wrapper(nn.Module):
    """The model, or some of its modules one after another, with exactly one input."""

    def __init__(self, model: nn.Module, chain: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.chain = chain

    def forward(self, x: Any) -> Any:
        if not self.chain:
            return self.model(x)
        for name in self.chain:
            x = self.model.get_submodule(name)(x)
        return x


class _Tracer(Tracer):
    """Does not trace into modules without submodules or in `whole`; reads every buffer at run time."""

    proxy_buffer_attributes = True

    def __init__(self, whole: Collection[str]) -> None:
        super().__init__()
        self.whole = whole
        self.calls = [Call("", 0)]
        self.number = 0
        self.inline: dict[str, nn.Module] = {}
        self.context = _context()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name.removeprefix(MODEL + ".") in self.whole:
            return True
        childless = not any(True for _ in m.children()) and module_qualified_name != MODEL
        return childless or super().is_leaf_module(m, module_qualified_name)

    def path_of_module(self, mod: nn.Module) -> str:
        try:
            return super().path_of_module(mod)
        except NameError:  # created in the forward pass
            if next(mod.parameters(), None) is not None:
                raise
            name = f"_inline{len(self.inline)}"
            self.inline[name] = mod
            return name

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = self.path_of_module(m)
        if self.is_leaf_module(m, name):
            return self.create_proxy("call_module", name, args, kwargs)
        before, generators = torch.get_rng_state(), states(m.modules())
        if name == MODEL:
            return self._without_draws(before, generators, forward(*args, **kwargs))
        start = len(self.graph.nodes)
        self.number += 1
        self.calls.append(Call(name.removeprefix(MODEL + "."), self.number))
        try:
            return self._without_draws(before, generators, forward(*args, **kwargs))
        except Exception:
            torch.set_rng_state(before)
            restore(generators)  # so that the check of the module around it passes
            for node in reversed(list(self.graph.nodes)[start:]):
                self.graph.erase_node(node)
        finally:
            self.calls.pop()
        return self.create_proxy("call_module", name, args, kwargs)

    @staticmethod
    def _without_draws(before: Tensor, generators: States, result: Any) -> Any:
        """Return the result of a forward; raises if it drew a random number, which would be recorded as a constant."""
        if not torch.equal(before, torch.get_rng_state()) or have_drawn(generators):
            raise RuntimeError(_RANDOM_CONSTANT)
        return result

    def create_node(self, *args: Any, **kwargs: Any) -> Node:
        if _context() != self.context:
            raise RuntimeError("torch.no_grad(), enable_grad() or autocast around part of a forward is not recorded")
        node = super().create_node(*args, **kwargs)
        node.meta["calls"] = tuple(self.calls)
        return node

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return super().getattr(attr, attr_val, {})  # a cached node may have been erased

    def to_bool(self, obj: Proxy) -> bool:
        frame = sys._getframe(2)
        following = (step for step in dis.get_instructions(frame.f_code) if step.offset > frame.f_lasti)
        if any("ASSERTION" in step.opname or step.argrepr == "AssertionError" for step in islice(following, 2)):
            return True
        return super().to_bool(obj)


def _context() -> tuple[bool, ...]:
    """State that a graph does not record: grad mode and autocast."""
    devices = ("cpu", "cuda")
    return (torch.is_grad_enabled(), *(torch.is_autocast_enabled(device) for device in devices))


def _record(model: nn.Module, chain: Sequence[str], whole: Collection[str], training: bool) -> Traced:
    for part in model.modules():
        part.training = training
    tracer = _Tracer(whole)
    wrapper = _Wrapper(model, chain)
    known = set(vars(wrapper))
    graph = tracer.trace(wrapper)
    extras = {name: value for name, value in vars(wrapper).items() if name not in known}
    return Traced(model, graph, {**extras, **tracer.inline})


def trace(model: nn.Module, chain: Sequence[str] = ()) -> Traced:
    """Record the forward pass of a model in training and in evaluation, and merge the two graphs.

    Modules without submodules are kept whole, and so are those whose forward cannot be traced or records other
    operations in training than in evaluation. A constant that differs between the two becomes a :class:`Switch`.

    Args:
        model: The model; it is not changed.
        chain: Record these modules one after another in place of the model's own forward.

    Raises:
        ValueError: the model's own forward cannot be traced, or differs between training and evaluation.
    """
    whole: set[str] = set()
    while True:
        with untouched(model):
            try:
                train, evaluation = (_record(model, chain, whole, training) for training in (True, False))
            except Exception as error:
                raise Untraceable(model, error) from error
        _check_constants(train, evaluation)
        differing = _differing(train.graph, evaluation.graph)
        if not differing and _align(train, evaluation):
            return train
        if not differing - {""}:
            raise ValueError(
                f"model={type(model).__name__}: its own forward does different things in training and in evaluation; "
                "switch that off (auxiliary classifiers: aux_logits=False) or move it into a separate module, which "
                "is then kept whole"
            )
        whole |= differing - {""}


class Untraceable(ValueError):
    """The model's own forward cannot be recorded."""

    def __init__(self, model: nn.Module, error: Exception) -> None:
        inside = (str(Path(torch.__file__).parent), __file__)
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(inside)]
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno}: `{frames[-1].line}`)" if frames else ""
        parts = [(name, part) for name, part in model.named_children() if next(part.parameters(), None) is not None]
        names = [path for name, part in parts for path in members(name, part)]
        super().__init__(
            f"model={type(model).__name__}: its forward cannot be traced{where}: {error}. Name the modules that run "
            f"one after another, and the shape of an input on which this is verified: partition(model, cuts={names}, "
            "input_shape=(3, 32, 32)); or move that code into a separate module, which is then kept whole"
        )


def members(name: str, module: nn.Module) -> list[str]:
    """Path of a module, or paths of the members of a module list, which does not run itself."""
    if not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return [name]
    return [path for field, part in module.named_children() for path in members(f"{name}.{field}", part)]


def _differing(train: Graph, evaluation: Graph) -> set[str]:
    """Paths of the modules that record other operations in training than in evaluation."""
    recorded: list[dict[str, list[tuple[str, Any]]]] = []
    for graph in (train, evaluation):
        of_graph: dict[str, list[tuple[str, Any]]] = {}
        for node in graph.nodes:
            of_graph.setdefault(node.meta["calls"][-1].path, []).append((node.op, node.target))
        recorded.append(of_graph)
    return {name for name in recorded[0].keys() | recorded[1].keys() if recorded[0].get(name) != recorded[1].get(name)}


def _check_constants(train: Traced, evaluation: Traced) -> None:
    """Check that tensor constants are equal in both graphs; a different one is a random number."""
    for name in train.extras.keys() & evaluation.extras.keys():
        a, b = train.extras[name], evaluation.extras[name]
        if isinstance(a, Tensor) and isinstance(b, Tensor) and not torch.equal(a, b):
            raise ValueError(
                f"model={type(train.model).__name__}: its forward draws random numbers of a fixed shape, which would "
                "be recorded as constants; draw them like the activation (torch.randn_like), or in a separate module"
            )


class _Different(Exception):
    """Two graphs are not the same up to constants."""


def _align(train: Traced, evaluation: Traced) -> bool:
    """Insert a switch into the training graph where a constant differs; False if more than constants differ."""
    pairs = list(zip_longest(train.graph.nodes, evaluation.graph.nodes))
    same = {a: b for a, b in pairs}
    try:
        for node, other in pairs:
            node.args = _merge(train, same, node, node.args, other.args)
            node.kwargs = _merge(train, same, node, node.kwargs, other.kwargs)
    except _Different:
        return False
    return True


def _merge(traced: Traced, same: dict[Node, Node], node: Node, a: Any, b: Any) -> Any:
    if isinstance(a, Node):
        if same[a] is not b:
            raise _Different
        return a
    if type(a) is type(b) and isinstance(a, tuple | list) and len(a) == len(b):
        entries = [_merge(traced, same, node, x, y) for x, y in zip(a, b, strict=True)]
        return tuple(entries) if isinstance(a, tuple) else entries
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return {key: _merge(traced, same, node, value, b[key]) for key, value in a.items()}
    if isinstance(a, slice) and isinstance(b, slice):
        ends = zip((a.start, a.stop, a.step), (b.start, b.stop, b.step), strict=True)
        return slice(*(_merge(traced, same, node, x, y) for x, y in ends))
    if type(a) is type(b) and a == b:
        return a
    if isinstance(b, Node) or node.op == "output":
        raise _Different
    return _switch(traced, node, a, b)


def _switch(traced: Traced, node: Node, a: Any, b: Any) -> Node:
    name = f"_mode{len(traced.extras)}"
    switch = Switch(a, b)
    switch.training = traced.model.get_submodule(node.meta["calls"][-1].path).training
    traced.extras[name] = switch
    with traced.graph.inserting_before(node):
        made = traced.graph.call_module(name)
    made.meta["calls"] = node.meta["calls"]
    return made
