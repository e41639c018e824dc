"""Squared error, sparsemax and the closed form, against numpy and least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_ff import Labels, Pairs, SolvedGoodness, Sparsemax, SparsemaxReadout, SquaredError
from lightning_ff.objectives import sparsemax

G = torch.Generator().manual_seed(0)
SCORES = torch.randn(7, 5, dtype=torch.float64, generator=G) * 2
LABEL = torch.tensor([0, 3, 1, 1, 2, 0, 4])
ROWS = torch.rand(200, 12, dtype=torch.float64, generator=G)
CLASSES = torch.randint(0, 5, (200,), generator=G)
ONEHOT = F.one_hot(CLASSES, 5).double()


def projected(row: np.ndarray) -> np.ndarray:
    """Projection on the simplex by bisection of the threshold."""
    low, high = row.min() - 1, row.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(row - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(row - low, 0)


def test_sparsemax_is_the_projection_on_the_simplex() -> None:
    expected = torch.from_numpy(np.stack([projected(row) for row in SCORES.numpy()]))
    torch.testing.assert_close(sparsemax(SCORES), expected)
    torch.testing.assert_close(sparsemax(SCORES).sum(1), torch.ones(7, dtype=torch.float64))


def test_sparsemax_loss_and_gradient() -> None:
    scores = SCORES.clone().requires_grad_()
    loss = Sparsemax()(scores, Labels(LABEL))
    loss.backward()
    torch.testing.assert_close(scores.grad, (sparsemax(SCORES) - F.one_hot(LABEL, 5)) / 7)
    assert loss.item() > 0
    sure = 10 * F.one_hot(LABEL, 5).double()
    assert Sparsemax()(sure, Labels(LABEL)).item() == 0.0


def test_squared_error() -> None:
    expected = sum((row - F.one_hot(c, 5)).square().sum() for row, c in zip(SCORES, LABEL, strict=True)) / 7
    torch.testing.assert_close(SquaredError()(SCORES, Labels(LABEL)), expected)


def test_votes_are_sums_of_sparsemax() -> None:
    outputs = [SCORES, SCORES.flip(1)]
    torch.testing.assert_close(SparsemaxReadout()(outputs), sparsemax(SCORES) + sparsemax(SCORES.flip(1)))


def solved(ridge: float, *batches: int, copies: int = 1) -> Tensor:
    """Weights after an epoch of batches of these sizes; a reduction over equal processes multiplies the sums."""
    goodness = SolvedGoodness(ridge)
    goodness.build(torch.Size((3, 4)), 5)
    goodness.double()
    for rows, label in zip(ROWS.split(list(batches)), CLASSES.split(list(batches)), strict=True):
        goodness.observe(rows.unflatten(1, (3, 4)), Labels(label))
    goodness.fit(lambda tensor: tensor * copies)
    assert goodness.gram.numel() == goodness.moment.numel() == 0
    torch.testing.assert_close(goodness(ROWS), ROWS @ goodness.weight)
    return goodness.weight


@pytest.mark.parametrize("ridge", [0.01, 1.0, 50.0])
def test_the_closed_form_has_no_gradient_left(ridge: float) -> None:
    weight = solved(ridge, 200).clone().requires_grad_()
    value = (ROWS @ weight - ONEHOT).square().sum() + ridge * weight.square().sum()
    (gradient,) = torch.autograd.grad(value, weight)
    assert gradient.norm() < 1e-10 * (ROWS.T @ ONEHOT).norm()


def test_batches_and_processes_do_not_matter() -> None:
    torch.testing.assert_close(solved(1.0, 200), solved(1.0, 60, 90, 50), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(solved(1.0, 200), solved(3.0, 200, copies=3), rtol=1e-12, atol=1e-14)


def test_a_small_ridge_is_least_squares() -> None:
    expected = torch.linalg.lstsq(ROWS, ONEHOT).solution
    distances = [float((solved(ridge, 200) - expected).norm() / expected.norm()) for ridge in (1e-1, 1e-3, 1e-6)]
    assert distances[0] > 10 * distances[1] > 100 * distances[2]
    assert distances[2] < 1e-6


def test_gradient_descent_on_the_squared_error_reaches_it() -> None:
    weight = torch.zeros(12, 5, dtype=torch.float64, requires_grad=True)
    for _ in range(20000):
        loss = SquaredError()(ROWS @ weight, Labels(CLASSES)) + 5 / 200 * weight.square().sum()
        (gradient,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            weight -= 0.2 * gradient
        if gradient.norm() < 1e-13:
            break
    assert (weight - solved(5.0, 200)).abs().max() < 1e-10


def test_labels_are_needed() -> None:
    goodness = SolvedGoodness()
    goodness.build(torch.Size((4,)), 5)
    with pytest.raises(TypeError, match="SolvedGoodness is fitted to labels"):
        goodness.observe(torch.zeros(2, 4), Pairs(1))
    with pytest.raises(TypeError, match="Sparsemax is a class-mode loss"):
        Sparsemax()(SCORES, Pairs(1))


def test_activations_that_are_not_finite_stop_the_fit() -> None:
    goodness = SolvedGoodness()
    goodness.build(torch.Size((4,)), 5)
    goodness.observe(torch.full((2, 4), torch.inf), Labels(torch.tensor([0, 1])))
    with pytest.raises(ValueError, match=r"ridge=1.0 is too small for the activations, or they are not finite"):
        goodness.fit(lambda tensor: tensor)
