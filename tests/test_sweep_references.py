"""The loop against references written independently in plain torch."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from lightning_ff import (
    CrossEntropy,
    LastReadout,
    LinearGoodness,
    LocalBlock,
    LocalLearner,
    LocalNetwork,
    MeanSquare,
    SumReadout,
    SumSquare,
    SymBa,
    ThresholdLoss,
)
from lightning_ff.negatives import wrong_labels
from lightning_ff.objectives import Goodness, LocalLoss
from tests.sweep_runs import CLASSES, WIDTHS, data, fit, learner, weights


class Reference:
    """Forward-Forward written out: no code of the package but the draw of the wrong labels."""

    def __init__(self, segments: str, goodness: str, loss: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.dtype = dtype
        sizes = [25 + CLASSES, *WIDTHS]
        self.layers = [nn.Linear(a, b).to(dtype) for a, b in pairwise(sizes)]
        self.kind, self.goodness, self.loss = segments, goodness, loss

    @staticmethod
    def rms(h: Tensor) -> Tensor:
        return h / (h.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()

    def measure(self, h: Tensor) -> Tensor:
        return (h**2).mean(1) if self.goodness == "mean" else (h**2).sum(1)

    def objective(self, g: Tensor, threshold: float) -> Tensor:
        positive, negative = g.chunk(2)
        if self.loss == "symba":
            return torch.log1p(torch.exp(-4.0 * (positive - negative))).mean()
        sides = torch.log1p(torch.exp(threshold - positive)), torch.log1p(torch.exp(negative - threshold))
        return sides[0].mean() + sides[1].mean()

    def total(self, x: Tensor, detach: bool) -> tuple[Tensor, Tensor]:
        """Sum of the losses, and the loss that is differentiated."""
        goodness = []
        for layer in self.layers:
            h = torch.relu(layer(self.rms(x)))
            goodness.append(self.measure(h))
            x = h.detach() if detach else h
        scales = [1.0 if self.goodness == "mean" else float(layer.out_features) for layer in self.layers]
        losses = [self.objective(g, scale) for g, scale in zip(goodness, scales, strict=True)]
        if self.kind == "loss_of_sum":
            return sum(losses), self.objective(sum(goodness), sum(scales))
        return sum(losses), losses[-1] if self.kind == "last" else sum(losses)

    def train(self, optimizer: Any) -> Tensor:
        optimizers = [optimizer(layer.parameters()) for layer in self.layers]
        for x, y, index in data():
            wrong = wrong_labels(y, CLASSES, index, seed=0, epoch=0)
            stacked = torch.cat([torch.cat([x.flatten(1), F.one_hot(c, CLASSES).float()], 1) for c in (y, wrong)])
            loss = self.total(stacked.to(self.dtype), detach=self.kind == "local")[1]
            for made in optimizers:
                made.zero_grad()
            loss.backward()
            for made in optimizers:
                made.step()
        return torch.cat([p.detach().double().flatten() for layer in self.layers for p in layer.parameters()])


ADAM = partial(torch.optim.Adam, lr=1e-2)
SGD = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)


@pytest.mark.parametrize(
    ("optimizer", "precision", "bound"), [(ADAM, "64-true", 1e-9), (SGD, "32-true", 1e-6)], ids=["adam64", "sgd32"]
)
@pytest.mark.parametrize("goodness", ["mean", "sum"])
@pytest.mark.parametrize("loss", ["symba", "threshold"])
@pytest.mark.parametrize("segments", ["local", "sum_of_losses", "loss_of_sum", "last"])
def test_equals_a_plain_torch_loop(
    segments: str, loss: str, goodness: str, optimizer: Any, precision: Any, bound: float
) -> None:
    parts: dict[str, Any] = {
        "goodness": MeanSquare() if goodness == "mean" else SumSquare(),
        "loss": SymBa() if loss == "symba" else ThresholdLoss(),
    }
    model = learner(segments=segments, optimizer=optimizer, **parts)
    start = weights(model)
    fit(model, precision=precision)
    dtype = torch.float64 if precision == "64-true" else torch.float32
    expected = Reference(segments, goodness, loss, dtype).train(optimizer)
    assert (weights(model) - expected).abs().max() < bound
    assert (weights(model) - start).abs().max() > 1e-3


def test_one_threshold_for_the_sum_leaves_each_blocks_own() -> None:
    model = learner(segments="loss_of_sum", goodness=SumSquare(), loss=ThresholdLoss())
    assert [block.loss.bound for block in model.blocks] == [float(width) for width in WIDTHS]
    assert not any("joint" in name for name in [*model.state_dict(), *dict(model.named_modules())])


class Raw(Goodness):
    """The activation itself is the class vector."""

    mode = "class"

    @override
    def forward(self, h: Tensor) -> Tensor:
        return h


def classifier(segments: Any, heads: bool) -> LocalLearner:
    torch.manual_seed(0)
    stack = [nn.Sequential(nn.Flatten(), nn.Linear(25, 16), nn.ReLU()), nn.Linear(16, CLASSES)]
    losses: list[LocalLoss] = [CrossEntropy(), CrossEntropy()]
    blocks = [
        LocalBlock(stack[0], LinearGoodness() if heads else None, losses[0]),
        LocalBlock(stack[1], Raw(), losses[1]),
    ]
    network = LocalNetwork(blocks, (1, 5, 5), CLASSES, readout=LastReadout() if not heads else SumReadout())
    return LocalLearner(network, segments=segments, optimizer=partial(torch.optim.SGD, lr=0.1))


def test_class_mode_last_is_plain_backprop() -> None:
    model = classifier("last", heads=False)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(25, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for x, y, _ in data():
        optimizer.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        optimizer.step()
    fit(model)
    assert (weights(model) - weights(plain)).abs().max() < 1e-6
    assert model(data(1)[0][0]).allclose(plain(data(1)[0][0]), atol=1e-5)


@pytest.mark.parametrize("segments", ["local", "sum_of_losses"])
def test_class_mode_local_and_deep_supervision(segments: str) -> None:
    model = classifier(segments, heads=True)
    first, last = model.blocks
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(25, 16), nn.ReLU()), nn.Linear(16, CLASSES)
    head = nn.Linear(16, CLASSES)
    assert torch.equal(head.weight, first.goodness.projection.weight)
    modules = nn.ModuleList([layers[0], head, layers[1]])
    optimizer = torch.optim.SGD(modules.parameters(), lr=0.1)
    for x, y, _ in data():
        optimizer.zero_grad()
        h = layers[0](x)
        loss = F.cross_entropy(head(h), y) + F.cross_entropy(layers[1](h.detach() if segments == "local" else h), y)
        loss.backward()
        optimizer.step()
    fit(model)
    assert (weights(model) - weights(modules)).abs().max() < 1e-6
    assert (weights(last) - weights(layers[1])).abs().max() < 1e-6
