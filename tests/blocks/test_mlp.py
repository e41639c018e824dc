"""Fully connected stacks, and the gradient through inactive units."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.blocks import FullGradientReLU, LocalBlock, mlp
from lightning_ff.objectives import MeanSquare, PeerNormalization, SumSquare, SymBa, Term, ThresholdLoss
from lightning_ff.target import Pairs


def test_shapes_and_values() -> None:
    layers = mlp(12, [7, 5, 3])
    assert [(m[1].in_features, m[1].out_features) for m in layers] == [(12, 7), (7, 5), (5, 3)]
    x = torch.randn(4, 3, 2, 2)
    weight, bias = layers[0].parameters()
    torch.testing.assert_close(layers[0](x), (x.reshape(4, 12) @ weight.T + bias).clamp(min=0))
    h = x
    for layer in layers:
        h = layer(h)
    assert h.shape == (4, 3)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("relu", F.relu),
        ("leaky_relu", F.leaky_relu),
        ("gelu", F.gelu),
        ("silu", F.silu),
        ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid),
    ],
)
def test_activations(name: Any, reference: Any) -> None:
    (layer,) = mlp(6, [5], activation=name)
    x = torch.randn(4, 6)
    torch.testing.assert_close(layer(x), reference(layer[1](x)))


def test_dropout_acts_on_the_activity_in_training_alone() -> None:
    (layer,) = mlp(6, [2000], dropout=0.25)
    x = torch.randn(1, 6)
    full = F.relu(layer[1](x))
    kept = layer(x)[full > 0] != 0
    assert 0.70 < float(kept.float().mean()) < 0.80
    torch.testing.assert_close(layer.eval()(x), full)
    assert not any(isinstance(m, nn.Dropout) for m in mlp(6, [2])[0])


@pytest.mark.parametrize("widths", [[], [0], [4, -1], [4, 0, 3]])
def test_missing_and_empty_layers_are_refused(widths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"widths=.*each at least 1"):
        mlp(4, widths)


def test_other_bad_arguments() -> None:
    with pytest.raises(ValueError, match="activation='swish': choose one of relu, leaky_relu, gelu"):
        mlp(4, [3], activation="swish")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="full_gradient=True works with activation='relu', not 'gelu'"):
        mlp(4, [3], activation="gelu", full_gradient=True)


def test_full_gradient_relu_is_relu_forwards_and_straight_through_backwards() -> None:
    x = torch.tensor([[-2.0, -0.0, 0.5, 3.0]], requires_grad=True)
    weight = torch.tensor([[1.0, -2.0, 3.0, 4.0]])
    y = FullGradientReLU()(x)
    assert torch.equal(y.detach(), F.relu(x.detach()))
    (y * weight).sum().backward()
    assert torch.equal(x.grad, weight)  # type: ignore[arg-type]
    straight = x.detach().clone().requires_grad_()
    ((straight + (F.relu(straight) - straight).detach()) * weight).sum().backward()
    assert torch.equal(x.grad, straight.grad)  # type: ignore[arg-type]


def gradients(block: LocalBlock, x: Tensor, positives: int) -> list[Tensor]:
    h, g = block(x, positives=positives)
    assert block.loss is not None
    loss = block.loss(g, Pairs(positives))
    for term in block.terms:
        loss = loss + term(x, h, Pairs(positives))
    loss.backward()
    return [p.grad for p in block.layers.parameters()]  # type: ignore[misc]


def twins(goodness: Any, loss: Any, *terms: Term) -> tuple[LocalBlock, LocalBlock]:
    """The same block with the plain ReLU and with the full gradient."""
    torch.manual_seed(0)
    (full,) = mlp(10, [30], full_gradient=True)
    plain = nn.Sequential(full[0], deepcopy(full[1]), nn.ReLU())
    return (
        LocalBlock(plain, goodness, loss, terms=[deepcopy(term) for term in terms]),
        LocalBlock(full, goodness, loss, terms=terms),
    )


@pytest.mark.parametrize("goodness", [SumSquare(), MeanSquare()], ids=str)
@pytest.mark.parametrize("loss", [ThresholdLoss(1.0), SymBa(4.0)], ids=str)
def test_with_squared_goodness_alone_the_full_gradient_changes_nothing(goodness: Any, loss: Any) -> None:
    """The derivative of a square at an inactive unit is zero, so there is no gradient to pass."""
    plain, full = twins(goodness, loss)
    x = torch.randn(16, 10)
    for a, b in zip(gradients(plain, x, 8), gradients(full, x, 8), strict=True):
        assert torch.equal(a, b)
        assert float(a.abs().max()) > 0


def test_with_peer_normalisation_the_full_gradient_reaches_silent_units() -> None:
    term = PeerNormalization(weight=1.0)
    term.build(torch.Size((30,)), torch.Size((30,)), 2)
    plain, full = twins(MeanSquare(), SymBa(4.0), term)
    for block in (plain, full):
        with torch.no_grad():
            block.layers[1].bias[3] = -100.0  # type: ignore[index]
    x = torch.randn(16, 10)
    without, through = gradients(plain, x, 8), gradients(full, x, 8)
    assert torch.equal(without[0][3], torch.zeros(10))
    assert float(through[0][3].abs().max()) > 1e-5
    mean = term.running_mean
    slope = 2 * (mean[3] - mean.mean()) / 30 * 0.1  # every positive of this dead unit gets the term's slope
    torch.testing.assert_close(through[1][3], slope)
