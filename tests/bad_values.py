"""Every argument of the public classes, with values that it does not take."""

from __future__ import annotations

import collections.abc as abc
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
from PIL import Image
from torch import Tensor, nn

import lightning_ff
import lightning_ff.data

# Holders of values that the package makes itself; Tensors, functions and plugins are checked where they are used.
HOLDERS = {"Batch", "Labels", "NegativeContext", "Pairs", "Partition", "SweepResult"}
ABSTRACT = {"ImageData"}


def folder(root: Path) -> str:
    """A folder of pictures for `ImageFolder`."""
    for name in ("a", "b"):
        (root / "train" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / "train" / name / "0.png")
    return str(root)


def block() -> lightning_ff.LocalBlock:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
    return lightning_ff.LocalBlock(layers, lightning_ff.LinearGoodness(), lightning_ff.CrossEntropy())


def network() -> lightning_ff.LocalNetwork:
    return lightning_ff.LocalNetwork([block()], (1, 8, 8), 10, lightning_ff.SumReadout())


def plain() -> nn.Module:
    return nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU()), nn.Linear(8, 10))


def sweep() -> dict[str, Any]:
    from lightning_ff.optim import make_optimizers

    net = network()
    return {"network": net, "optimizers": make_optimizers(net.owners, partial(torch.optim.SGD, lr=0.1))}


CUT = {"model": plain, "num_classes": lambda: 10, "input_shape": lambda: (1, 8, 8)}
# Arguments without a default, and those that others need.
VALID: dict[str, dict[str, Callable[[], Any]]] = {
    "MLP": {"num_classes": lambda: 10, "inputs": lambda: 64},
    "ResidualMLP": {"num_classes": lambda: 10, "inputs": lambda: 64},
    "BWBPF": {**CUT, "cuts": lambda: "blocks"},
    "TRGL": {**CUT, "tau": lambda: None},
    "TransportCost": {"tau": lambda: 0.1},
    "ActivationPenalty": {"weight": lambda: 0.1},
    **dict.fromkeys(
        ("Backprop", "DeepSupervision", "CaFo", "HypersphericalFF", "MonoForward", "PredSim", "ScalableForwardForward"),
        CUT,
    ),
    **dict.fromkeys(("ActivationRelaxationNet", "BlockADMMNet", "PredictiveCodingNet"), CUT),
    "GaussianNoise": {"std": lambda: 0.1},
    "StateRelaxation": {"rate": lambda: 0.1},
    "UFF": {"num_classes": lambda: 10, "input_shape": lambda: (1, 8, 8), "widths": lambda: [8]},
    "CwC": {"num_classes": lambda: 10, "input_shape": lambda: (1, 8, 8), "channels": lambda: [20]},
    "DeeperForward": {"num_classes": lambda: 10, "input_shape": lambda: (1, 8, 8), "channels": lambda: [20]},
    "GroupNormalize": {"groups": lambda: 2},
    "ILT": {"data": lambda: "mnist"},
    "WeightedLosses": {"losses": lambda: [lightning_ff.CrossEntropy()], "weights": lambda: [1.0]},
    "BlockOptimizers": {"optimizers": lambda: {"block00": torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)}},
    "ByShape": {
        "params": lambda: list(nn.Linear(2, 2).parameters()),
        "matrices": lambda: torch.optim.AdamW,
        "others": lambda: torch.optim.AdamW,
    },
    "Compose": {"transforms": lambda: [lightning_ff.RandomFlip()]},
    "ConvNet": {"num_classes": lambda: 10},
    "CosineToEnd": {"optimizer": lambda: torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)},
    "ForwardForward": {"num_classes": lambda: 10, "input_shape": lambda: (1, 8, 8), "widths": lambda: [8]},
    "LocalBlock": {"layers": lambda: nn.Linear(4, 4)},
    "LocalLearner": {"network": network},
    "LocalNetwork": {
        "blocks": lambda: [block()],
        "input_shape": lambda: (1, 8, 8),
        "num_classes": lambda: 10,
        "readout": lightning_ff.SumReadout,
    },
    "MixNegatives": {
        "samplers": lambda: [lightning_ff.WrongLabel(), lightning_ff.WrongLabel(seed=1)],
        "start": lambda: [1.0, 1.0],
    },
    "Mixture": {
        "samplers": lambda: [lightning_ff.WrongLabel(), lightning_ff.WrongLabel(seed=1)],
        "weights": lambda: [1.0, 1.0],
    },
    "SwitchNegatives": {"samplers": lambda: {0: lightning_ff.WrongLabel()}},
    "WindowSchedule": {"windows": lambda: [[(0, 1)]]},
    "BatchLoader": {"images": lambda: torch.rand(4, 3), "labels": lambda: torch.arange(4)},
}
# Classes with named choices beside other types, and arguments of a class that is checked elsewhere.
SKIPPED: dict[tuple[str, str], str] = {
    ("CaFo", "weights"): "a path or an enumeration of torchvision, checked when it is read",
    ("TRGL", "weights"): "a path or an enumeration of torchvision, checked when it is read",
    ("Backprop", "weights"): "a path or an enumeration of torchvision, checked when it is read",
    ("ScalableForwardForward", "weights"): "a path or an enumeration of torchvision, checked when it is read",
    ("LocalDDPStrategy", "accelerator"): "Lightning's",
    ("LocalDDPStrategy", "parallel_devices"): "Lightning's",
    ("LocalDDPStrategy", "cluster_environment"): "Lightning's",
    ("LocalDDPStrategy", "checkpoint_io"): "Lightning's",
    ("LocalDDPStrategy", "precision_plugin"): "Lightning's",
    ("BatchLoader", "scale"): "a function",
    ("BlockSummary", "max_depth"): "Lightning's",
    ("CosineToEnd", "optimizer"): "torch's",
    ("Sweep", "backward_fn"): "a function",
    ("Sweep", "step_fn"): "a function",
}


ALIASES = {("Normalize", "kind"): "normalization"}  # the name in a message, where it is another


def classes() -> dict[str, type]:
    """Public classes with arguments."""
    found = {}
    for module in (lightning_ff, lightning_ff.data):
        for name in module.__all__:
            each = getattr(module, name)
            if inspect.isclass(each) and name not in HOLDERS | ABSTRACT and not issubclass(each, Exception):
                found[name] = each
    return found


def arguments(kind: type) -> dict[str, Any]:
    """Annotations of the arguments by name."""
    hints = typing.get_type_hints(kind.__init__)  # type: ignore[misc]
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: hints.get(p.name) for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def takes(annotation: Any) -> set[str]:
    """Kinds of values that an annotation takes."""
    origin = get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return {kind for each in get_args(annotation) for kind in takes(each)}
    if origin is Literal:
        return {"choice"}
    if annotation is type(None):
        return {"none"}
    if annotation in (bool, int, float, str, Tensor):
        return {annotation.__name__}
    if origin is abc.Callable or annotation is abc.Callable:
        return {"function"}
    if origin in (list, tuple, abc.Sequence, abc.Iterable) or annotation in (list, tuple):
        return {"list"}
    if origin in (dict, abc.Mapping):
        return {"mapping"}
    return {getattr(annotation, "__name__", str(annotation))}


class Other:
    """A value of no type that any argument takes."""

    def __repr__(self) -> str:
        return "Other()"


BAD: dict[str, Any] = {
    "other": Other(),
    "text": "false",
    "empty text": "",
    "number": 0.37,
    "negative": -1,
    "zero": 0,
    "one": 1,
    "huge": 2**70,
    "bool": True,
    "nan": math.nan,
    "infinite": math.inf,
    "list": [],
    "mapping": {},
    "class": dict,
    "none": None,
}


def wrong(annotation: Any) -> Iterator[str]:
    """Names of the values in `BAD` that are of a type which an annotation does not take."""
    kinds = takes(annotation)
    yield "other"
    if "none" not in kinds:
        yield "none"
    if not kinds & {"str", "choice", "list"}:
        yield "text"
    if "choice" in kinds and "str" not in kinds:
        yield "empty text"
    if "bool" not in kinds:
        yield "bool"
    elif not kinds & {"int", "float"}:
        yield from ("zero", "one")
    if not kinds & {"float"}:
        yield from ("number", "nan")
    elif "float" in kinds:
        yield from ("nan", "infinite")
    if not kinds & {"list", "int"}:
        yield "list"
    if "mapping" not in kinds:
        yield "mapping"
    if "function" not in kinds and "type" not in kinds:
        yield "class"
