"""Goodness functions and classes against numpy, and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_ff.blocks import LocalBlock
from lightning_ff.objectives import (
    CrossEntropy,
    Goodness,
    LinearGoodness,
    MeanSquare,
    NormGoodness,
    SumSquare,
    mean_square,
    norm_goodness,
    sum_square,
)

Reference = Callable[[np.ndarray], np.ndarray]
CASES: list[tuple[Goodness, Reference, Callable[[int], float]]] = [
    (SumSquare(), lambda h: (h**2).sum(1), float),
    (MeanSquare(), lambda h: (h**2).sum(1) / h.shape[1], lambda d: 1.0),
    (NormGoodness(1), lambda h: np.abs(h).sum(1), float),
    (NormGoodness(2), lambda h: np.sqrt((h**2).sum(1)), lambda d: d**0.5),
    (NormGoodness("inf"), lambda h: np.abs(h).max(1), lambda d: 1.0),
]
NAMES = ["sum", "mean", "l1", "l2", "linf"]
each = pytest.mark.parametrize(("goodness", "reference", "unit"), CASES, ids=NAMES)


def activation(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@each
@pytest.mark.parametrize("shape", [(6, 11), (6, 3, 5, 7), (6, 4, 9), (1, 1)], ids=str)
def test_values_of_flat_and_conv_activations(
    goodness: Goodness, reference: Reference, unit: Callable[[int], float], shape: tuple[int, ...]
) -> None:
    h = activation(*shape)
    g = goodness(h)
    assert g.shape == shape[:1]
    assert g.dtype == torch.float32
    np.testing.assert_allclose(g.numpy(), reference(h.double().flatten(1).numpy()), rtol=2e-6)


@each
@pytest.mark.parametrize("features", [1, 7, 500])
def test_unit_is_the_goodness_of_ones(
    goodness: Goodness, reference: Reference, unit: Callable[[int], float], features: int
) -> None:
    assert goodness.unit((features,)) == pytest.approx(unit(features), rel=1e-6)


@each
def test_gradients(goodness: Goodness, reference: Reference, unit: Callable[[int], float]) -> None:
    h = activation(3, 2, 4, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(goodness, (h,))


@each
def test_silent_samples_have_goodness_and_gradient_zero(
    goodness: Goodness, reference: Reference, unit: Callable[[int], float]
) -> None:
    """A layer of ReLUs can be silent for a sample: the root of the norm must not give NaN there."""
    h = activation(3, 8).index_fill(0, torch.tensor([1]), 0.0).requires_grad_()
    g = goodness(h)
    g.sum().backward()
    assert h.grad is not None
    assert float(g.detach()[1]) == 0.0
    assert h.grad.isfinite().all()
    assert torch.equal(h.grad[1], torch.zeros(8))
    assert bool((h.grad[0] != 0).any())


def test_functions_and_classes_agree() -> None:
    h = activation(5, 2, 3, 3)
    pairs = [
        (SumSquare()(h), sum_square(h)),
        (MeanSquare()(h), mean_square(h)),
        (NormGoodness()(h), norm_goodness(h)),
        (NormGoodness(1)(h), norm_goodness(h, 1.0)),
        (NormGoodness("inf")(h), norm_goodness(h, float("inf"))),
    ]
    for a, b in pairs:
        assert torch.equal(a, b)
    torch.testing.assert_close(norm_goodness(h).square(), sum_square(h))
    torch.testing.assert_close(mean_square(h) * 18, sum_square(h))


@each
def test_a_block_measures_bf16_in_float32(
    goodness: Goodness, reference: Reference, unit: Callable[[int], float]
) -> None:
    """The sum over many features would lose whole samples' worth of goodness in bf16's eight bits."""
    h = activation(4, 3000).bfloat16()
    block = LocalBlock(nn.Identity(), goodness)
    expected = reference(h.double().numpy())
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            g = block.measure(h)
        assert g.dtype == torch.float32
        np.testing.assert_allclose(g.numpy(), expected, rtol=3e-6)


def test_a_block_keeps_float64() -> None:
    h = activation(4, 30).double()
    block = LocalBlock(nn.Identity(), SumSquare())
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            g = block.measure(h)
        assert g.dtype == torch.float64
        assert torch.equal(g, h.square().sum(1))


def built(bias: bool = True) -> LinearGoodness:
    goodness = LinearGoodness(bias=bias)
    goodness.build(torch.Size((2, 3, 4)), num_classes=5)
    return goodness


@pytest.mark.parametrize("bias", [True, False])
def test_linear_goodness_is_one_projection_per_class(bias: bool) -> None:
    goodness = built(bias)
    assert goodness.mode == "class"
    assert goodness.projection is not None
    assert sum(p.numel() for p in goodness.parameters()) == 24 * 5 + 5 * bias
    h = activation(6, 2, 3, 4)
    weight = goodness.projection.weight.detach().double().numpy()
    offset = goodness.projection.bias.detach().double().numpy() if bias else 0.0
    expected = h.double().flatten(1).numpy() @ weight.T + offset
    np.testing.assert_allclose(goodness(h).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("true_precision", [False, True], ids=["autocast", "bf16 weights"])
def test_linear_goodness_is_float32_in_low_precision(true_precision: bool) -> None:
    goodness = built()
    if true_precision:
        goodness = goodness.bfloat16()
    h = activation(6, 2, 3, 4).bfloat16().requires_grad_()
    block = LocalBlock(nn.Identity(), goodness, CrossEntropy())
    with torch.autocast("cpu", torch.bfloat16, enabled=not true_precision):
        g = block.measure(h)
    assert g.dtype == torch.float32
    assert goodness.projection is not None
    weight, bias = goodness.projection.weight.detach().float(), goodness.projection.bias.detach().float()
    torch.testing.assert_close(g.detach(), h.detach().float().flatten(1) @ weight.T + bias)
    g.sum().backward()
    assert goodness.projection.weight.grad is not None
    assert goodness.projection.weight.grad.dtype == goodness.projection.weight.dtype


def test_linear_goodness_without_weights_says_who_builds_them() -> None:
    with pytest.raises(RuntimeError, match="LocalNetwork builds them"):
        LinearGoodness()(activation(2, 3))


@pytest.mark.parametrize("p", [0, 3, -1, float("inf"), "1", None])
def test_other_norms_are_refused(p: object) -> None:
    with pytest.raises(ValueError, match="choose 1, 2 or 'inf'"):
        NormGoodness(p)  # type: ignore[arg-type]


def test_the_base_names_what_to_override() -> None:
    class Forgotten(Goodness):
        pass

    with pytest.raises(TypeError, match=r"Forgotten must override forward\(h\)"):
        Forgotten()(activation(1, 1))


def test_pair_mode_is_the_default() -> None:
    assert {goodness.mode for goodness, _, _ in CASES} == {"pair"}
