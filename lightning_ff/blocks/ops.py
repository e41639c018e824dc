"""Properties of single operations of a traced model."""

from __future__ import annotations

import inspect
import operator
from functools import cache
from typing import Any

from torch.fx import Node

from lightning_ff.blocks.tracing import Traced

_SHAPE = {"shape", "ndim", "device", "dtype", "size", "dim", "numel", "nelement", "ndimension"}
_RANDOM = ("rand", "bernoulli", "normal_", "multinomial", "dropout")
_MANY = {"chunk", "split", "split_with_sizes", "tensor_split", "unbind", "topk", "meshgrid"}
_PRODUCTS = ("conv", "linear", "matmul", "mm", "einsum", "attention", "embedding")
_FRESH = (*_PRODUCTS, "norm", "pool", "cat", "stack", "add", "sub", "mul", "div", "clone")
_VECTOR = ("flatten", "adaptiveavgpool", "adaptivemaxpool", "adaptive_avg_pool", "adaptive_max_pool")
_INPLACE_OPERATORS = {"iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow", "imod", "imatmul"}
_KNOWN = {"torch", "torchvision", "_operator", "builtins", "math"}


def name_of(traced: Traced, node: Node) -> str:
    """Name of the function, method or class (in lower case) that a node calls, or of the attribute it reads."""
    module = traced.module(node)
    if module is not None:
        return type(module).__name__.lower()
    if node.target is getattr:
        return str(node.args[1])
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def gives_shape(traced: Traced, node: Node) -> bool:
    """Whether a node reads the shape, the dtype or the device of a tensor."""
    return node.op in ("call_function", "call_method") and name_of(traced, node) in _SHAPE


def gives_batch_size(traced: Traced, node: Node) -> Node | None:
    """The tensor whose batch size or device a node reads; None for other nodes."""
    name = name_of(traced, node)
    source = node.args[0] if node.args else None
    if not isinstance(source, Node):
        return None
    if name == "device" or (node.op == "call_method" and name == "size" and node.args[1:] == (0,)):
        return source
    if node.target is operator.getitem and node.args[1] == 0 and name_of(traced, source) in ("shape", "size"):
        tensor = source.args[0]
        return tensor if isinstance(tensor, Node) and len(source.args) == 1 + (source.target is getattr) else None
    return None


def is_random(traced: Traced, node: Node) -> bool:
    """Whether a node draws random numbers."""
    return any(word in name_of(traced, node) for word in _RANDOM)


def is_check(node: Node) -> bool:
    """Whether a node is an assertion."""
    return getattr(node.target, "__name__", "") == "_assert"


def gives_many(node: Node) -> bool:
    """Whether the value of a node is, or may be, several tensors."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name in _MANY or any(u.target is operator.getitem and isinstance(u.args[1], int) for u in node.users)


@cache
def _position_of_inplace(function: Any) -> int | None:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None
    return names.index("inplace") if "inplace" in names else None


def in_place(traced: Traced, node: Node) -> bool:
    """Whether a node is known to write to its first argument and to return it."""
    module = traced.module(node)
    if module is not None:
        return bool(getattr(module, "inplace", False)) and type(module).__module__.startswith("torch.nn")
    if node.op not in ("call_function", "call_method"):
        return False
    name = name_of(traced, node)
    if name in _INPLACE_OPERATORS or (name.endswith("_") and not name.endswith("__")):
        return True
    position = _position_of_inplace(node.target) if node.op == "call_function" else None
    positional = node.args[position] if position is not None and position < len(node.args) else False
    return bool(node.kwargs.get("inplace", positional))


def is_opaque(traced: Traced, node: Node) -> bool:
    """Whether the code that a node runs is unknown: a user-defined module or function, kept whole."""
    if node.op not in ("call_module", "call_function"):
        return False
    module = traced.module(node)
    package = getattr(node.target if module is None else type(module), "__module__", None) or "builtins"
    return package.split(".")[0] not in _KNOWN


def written(traced: Traced, node: Node) -> list[Node]:
    """The inputs of a node that it writes to, or may write to."""
    if in_place(traced, node):
        source = target_of(node)
        return [] if source is None else [source]
    return node.all_input_nodes if is_opaque(traced, node) else []


def target_of(node: Node) -> Node | None:
    """The first argument."""
    source = node.args[0] if node.args else node.kwargs.get("input")
    return source if isinstance(source, Node) else None


def is_fresh(traced: Traced, node: Node) -> bool:
    """Whether the value of a node is known to share no memory with the node's inputs."""
    module = traced.module(node)
    if in_place(traced, node) or (module is not None and not type(module).__module__.startswith("torch.nn")):
        return False
    return node.op != "placeholder" and any(word in name_of(traced, node) for word in _FRESH)


def is_weighted(traced: Traced, node: Node) -> bool:
    """Whether a node is a weight layer: it multiplies with a parameter of two dimensions or more."""
    module = traced.module(node)
    if module is not None:
        normalizes = "norm" in name_of(traced, node) and not any(True for _ in module.children())
        return not normalizes and any(p.dim() > 1 for p in module.parameters())
    if node.op not in ("call_function", "call_method") or in_place(traced, node):
        return False
    return any(word in name_of(traced, node) for word in _PRODUCTS) and bool(matrices(traced, node))


def matrices(traced: Traced, node: Node) -> list[Node]:
    """The `get_attr` nodes of parameters of two dimensions or more that a node computes with directly."""
    reads = [(source, traced.parameter(source)) for source in _constants(node)]
    return [source for source, parameter in reads if parameter is not None and parameter.dim() > 1]


def _constants(node: Node) -> list[Node]:
    """The `get_attr` nodes that a node reads, directly or through operations on constants only."""
    found: list[Node] = []
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            found.append(source)
        elif source.op in ("call_function", "call_method") and _is_constant(source):
            found += _constants(source)
    return found


def _is_constant(node: Node) -> bool:
    return node.op == "get_attr" or (node.op != "placeholder" and all(_is_constant(s) for s in node.all_input_nodes))


def is_vectorizing(traced: Traced, node: Node) -> bool:
    """Whether a node turns a map into a vector: global pooling, flattening, the choice of a token."""
    if node.op == "placeholder":
        return False
    name = name_of(traced, node)
    if node.target is operator.getitem:
        return not isinstance(node.args[1], int)
    return name in ("mean", "view", "reshape") or name.startswith(_VECTOR)


def is_product(node: Node) -> bool:
    """Whether a node multiplies element by element."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and name in ("mul", "mul_", "imul", "multiply", "multiply_")


def is_spatial(traced: Traced, node: Node) -> bool:
    """Whether a weight layer is a convolution, with the spatial axes after the channels."""
    module = traced.module(node)
    if module is None:
        return "conv" in name_of(traced, node)
    return any("conv" in type(part).__name__.lower() for part in module.modules())
