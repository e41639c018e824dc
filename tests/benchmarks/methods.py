"""Time and memory of a step of every method, relative to backprop through the same layers.

    python -m tests.benchmarks.methods --json methods.json

32 pixels, batch 64, Adam, one thread, plain torch: a `Sweep` for the method, and one backward through its layers with
average pooling and a classifier for backprop. The two take turns. Times are medians over turns of the ratio of the
fastest steps; memory is the most that autograd keeps for backward, parameters left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_ff
from lightning_ff import ConvNet, Labels, LocalLearner, MeanReadout, Pairs, Sweep
from lightning_ff.optim import make_optimizers
from tests.benchmarks.memory_meter import saved_for_backward
from tests.benchmarks.report import arguments, publish

SHAPE, CLASSES, BATCH = (3, 32, 32), 10, 64
ADAM = partial(torch.optim.Adam, lr=1e-4, fused=True)
Step = Callable[[], Any]


def net() -> nn.Module:
    return ConvNet(CLASSES, widths=[32, 64, 128, 128])


NAMES = ("ScalableForwardForward", "MonoForward", "PredSim", "HypersphericalFF", "BWBPF", "TRGL", "CaFo")
CUT = {name: (net, CLASSES, SHAPE) for name in NAMES}
OPTIONS: dict[str, dict[str, Any]] = {"BWBPF": {"cuts": "blocks"}, "TRGL": {"tau": None}, "CaFo": {"predictor": "ce"}}
BUILT: dict[str, dict[str, Any]] = {
    "ForwardForward": {"widths": [1000, 1000, 1000]},
    "CwC": {"channels": [40, 80, 160, 160]},
    "DeeperForward": {"channels": [40, 40, 40, 80, 80], "readout": MeanReadout()},
}
METHODS = [*CUT, *BUILT]


def learner(name: str) -> LocalLearner:
    """A method on a small network."""
    torch.manual_seed(0)
    kind: Any = getattr(lightning_ff, name)
    if name in CUT:
        make, *rest = CUT[name]
        return kind(make(), *rest, **OPTIONS.get(name, {}))
    return kind(CLASSES, SHAPE, **BUILT[name])


class Chain(nn.Module):
    """Layers of all blocks one after another, and a classifier."""

    def __init__(self, model: LocalLearner) -> None:
        super().__init__()
        self.layers = nn.ModuleList(deepcopy(block.layers) for block in model.blocks).requires_grad_(True)
        shape = model.network.shapes[-1][0]
        self.head = nn.Identity() if shape == (CLASSES,) else nn.Linear(shape[0], CLASSES)

    def forward(self, x: Any) -> Tensor:
        for layer in self.layers:
            x = layer(*x) if isinstance(x, tuple) else layer(x)
        return self.head(x.mean((2, 3)) if x.dim() == 4 else x)


def method_step(model: LocalLearner, image: Tensor, label: Tensor) -> Step:
    """A step of the method; in pair mode positives and negatives are ready."""
    owners = model.segmentation.owners(model.network)
    sweep = Sweep(model.network, make_optimizers(owners, ADAM), segments=model.segments)
    model.train()
    if model.network.mode == "class":
        x = model.network.normalize(image)
        return lambda: sweep(x, Labels(label), image, label)
    wrong = (label + 1) % CLASSES
    both = torch.cat([model.labels(image, label), model.labels(image, wrong)])
    return lambda: sweep(model.network.normalize(both), Pairs(len(label)), image, label)


def backprop_step(model: nn.Module, image: Tensor, label: Tensor) -> Step:
    optimizer = ADAM(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(image), label).backward()
        optimizer.step()

    return step


def fastest(step: Step, count: int) -> float:
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def compare(name: str, turns: int) -> dict[str, float]:
    """Ratios of a method's step to backprop's."""
    model = learner(name)
    image, label = torch.rand(BATCH, *SHAPE), torch.randint(CLASSES, (BATCH,))
    chain = Chain(model)
    ours, plain = method_step(model, image, label), backprop_step(chain, image, label)
    kept = {}
    for key, module, step in (("ours", model, ours), ("plain", chain, plain)):
        with saved_for_backward(module) as meter:
            step()
        kept[key] = meter.peak
    pairs = [(fastest(ours, 3), fastest(plain, 3)) for _ in range(turns)]
    return {f"time_{name}": median(a / b for a, b in pairs), f"memory_{name}": kept["ours"] / kept["plain"]}


def main() -> None:
    given = arguments(__doc__ or "", threads=1)
    numbers: dict[str, float] = {}
    for name in METHODS:
        numbers |= compare(name, 1 if given.quick else 7)
    publish(numbers, {key: "relative to backprop through the same layers" for key in numbers}, given.json)


if __name__ == "__main__":
    main()
