"""Predictive coding and block-ADMM: signals against those of backprop and against steps by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.nn import functional as F

from lightning_ff import (
    UFF,
    ActivationRelaxation,
    Backprop,
    BlockADMM,
    CrossEntropy,
    Labels,
    LastReadout,
    LocalBlock,
    LocalNetwork,
    OutputGoodness,
    PredictiveCoding,
    PredictiveCodingNet,
)
from lightning_ff.credit import StateRelaxation
from tests.strategies.runs import CLASSES, SGD, SHAPE, Ddp, Pipeline, difference, trained
from tests.sweep.parts import resumes_exactly

gloo = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")


def network() -> LocalNetwork:
    """Four layers with tanh, the last one linear."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise([12, 10, 9, 8])]
    blocks = [*map(LocalBlock, layers), LocalBlock(nn.Linear(8, CLASSES), OutputGoodness(), CrossEntropy())]
    return LocalNetwork(blocks, (12,), CLASSES, LastReadout()).double()


X = torch.randn(16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.arange(16) % CLASSES


def backprop_signals(net: LocalNetwork) -> list[Tensor]:
    """Gradients of the mean loss at the outputs of all blocks but the last."""
    outputs: list[Tensor] = []
    h = X
    for block in net.stack:
        h = block.layers(h)
        outputs.append(h)
    return list(torch.autograd.grad(F.cross_entropy(h, Y), outputs[:-1]))


@torch.no_grad()
def signals(credit: StateRelaxation, net: LocalNetwork) -> list[Tensor]:
    credit.prepare(net, X, Labels(Y))
    return [credit._signals[k] for k in range(3)]


def error(credit: StateRelaxation) -> float:
    """Largest relative distance of a signal from backprop's."""
    net = network()
    pairs = zip(signals(credit, net), backprop_signals(net), strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def test_multipliers_tend_to_the_signals_of_backprop() -> None:
    credits = [BlockADMM(1.0, rate=0.3, steps=20, rounds=n) for n in (1, 10, 50)]
    errors = [error(credit) for credit in credits]
    assert errors[0] > 0.05
    assert errors[1] < 0.02
    assert errors[2] < 1e-8
    assert max(float(credits[2].values()[f"residual/block0{k}"]) for k in range(3)) < 2e-9


def test_predictive_coding_tends_to_backprop_for_a_small_precision() -> None:
    errors = [error(PredictiveCoding(0.2, steps=400, precision=pi)) for pi in (1.0, 0.1, 0.01, 0.001)]
    assert errors[0] > 0.1
    assert errors[2] < 0.05
    assert errors[3] < 0.02
    assert errors == sorted(errors, reverse=True)


def test_steps_of_predictive_coding_by_hand() -> None:
    net = network()
    layers = [block.layers for block in net.stack]
    with torch.no_grad():
        states = [layers[0](X)]
        states += [layers[1](states[0])]
        states += [layers[2](states[1])]
    for _ in range(3):
        leaves = [state.detach().requires_grad_() for state in states]
        inputs = [X, *leaves]
        errors = [state - layer(x) for state, layer, x in zip(leaves, layers, inputs, strict=False)]
        energy = sum(e.square().sum() for e in errors) / 2 + 0.7 * F.cross_entropy(
            layers[3](leaves[2]), Y, reduction="sum"
        )
        gradients = torch.autograd.grad(energy, leaves)  # type: ignore[arg-type]
        states = [state.detach() - 0.1 * gradient for state, gradient in zip(leaves, gradients, strict=True)]
    inputs = [X, *states]
    expected = [(layer(x) - state) / 0.7 / 16 for layer, x, state in zip(layers, inputs, states, strict=False)]
    for found, wanted in zip(signals(PredictiveCoding(0.1, 3, 0.7), net), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_predictive_coding_of_one_block_is_backprop() -> None:
    torch.manual_seed(0)
    make: Any = lambda **kind: Backprop(nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES)), CLASSES, SHAPE, **kind)  # noqa: E731
    torch.manual_seed(1)
    one = make(optimizer=SGD, credit=PredictiveCoding(), cuts=1)
    torch.manual_seed(1)
    two = make(optimizer=SGD, cuts=1)
    assert difference(trained(one, 1), trained(two, 1)) < 1e-6


def learner(credit: Any) -> Backprop:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 10), nn.Tanh(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    return Backprop(net, CLASSES, SHAPE, cuts="layers", credit=credit, optimizer=SGD)


CREDITS = [PredictiveCoding(0.1, 3), BlockADMM(1.0, 0.1, 2, 2)]


@pytest.mark.parametrize("credit", CREDITS, ids=repr)
def test_resumes_exactly(credit: StateRelaxation, tmp_path: Path) -> None:
    resumes_exactly(lambda: learner(credit), tmp_path / "saved.ckpt")


@pytest.mark.parametrize("credit", CREDITS, ids=repr)
def test_what_is_logged(credit: StateRelaxation) -> None:
    model = learner(credit)
    trained(model, 1, log_every_n_steps=5)
    logged = {name: float(value) for name, value in model.trainer.callback_metrics.items() if "relaxation" in name}
    assert logged.keys() == {"relaxation/energy", "relaxation/residual/block00", "relaxation/residual/block01"}
    assert all(value > 0 for value in logged.values())


@gloo
@pytest.mark.slow
@pytest.mark.parametrize("credit", CREDITS, ids=repr)
def test_two_processes(credit: StateRelaxation) -> None:
    one, two = (trained(learner(credit).double(), n, torch.float64, strategy=Ddp()) for n in (1, 2))
    assert difference(one, two) < 1e-9
    with pytest.raises(ProcessRaisedException, match=f"credit={type(credit).__name__}.*ff_ddp"):
        trained(learner(credit), 2, strategy=Pipeline())


@pytest.mark.parametrize(("rate", "steps", "bound"), [(1.0, 3, 1e-12), (0.5, 40, 1e-6)])
def test_fixed_predictions_are_activation_relaxation(rate: float, steps: int, bound: float) -> None:
    """The signals of activation relaxation in parallel order are backprop's after K - 1 steps of rate 1."""
    net, credit = network(), ActivationRelaxation(rate, steps, order="parallel")
    with torch.no_grad():
        credit.prepare(net, X, Labels(Y))
    for k, wanted in enumerate(backprop_signals(net)):
        assert (credit._signals[k] - wanted).norm() < bound * wanted.norm() * 100


@pytest.mark.parametrize("credit", CREDITS, ids=repr)
def test_the_last_block_needs_a_loss(credit: StateRelaxation) -> None:
    model = UFF(CLASSES, SHAPE, widths=[8, 8], credit=credit, optimizer=SGD)
    with pytest.raises(ValueError, match="learns from the loss of the last block, and block01 has none"):
        trained(model, 1)


def test_presets_take_their_own_relaxation() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))
    with pytest.raises(TypeError, match=r"credit=BlockADMM.*give PredictiveCoding\(\), or another method"):
        PredictiveCodingNet(net, CLASSES, SHAPE, credit=BlockADMM())
    assert isinstance(PredictiveCodingNet(net, CLASSES, SHAPE).credit, PredictiveCoding)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PredictiveCoding(rate=0), "rate=0: must be above 0"),
        (lambda: PredictiveCoding(steps=0), "steps=0: must be at least 1"),
        (lambda: PredictiveCoding(precision=0), "precision=0: must be above 0"),
        (lambda: BlockADMM(rho=-1), "rho=-1: must be above 0"),
        (lambda: BlockADMM(rounds=0), "rounds=0: must be at least 1"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
