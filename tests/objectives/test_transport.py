"""Transport cost: its value, its proximal form, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_ff.objectives import CrossEntropy, TransportCost, transport_cost
from lightning_ff.target import Labels

ROWS, D = 20, 6


def problem() -> tuple[Tensor, Any]:
    """Points and a convex loss on them, the mean cross-entropy of a fixed linear layer, in float64."""
    g = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, D, generator=g, dtype=torch.float64) for n in (ROWS, 4))
    target = Labels(torch.randint(0, 4, (ROWS,), generator=g))
    return x, lambda z: CrossEntropy()(z @ weight.T, target)


def gradient(loss: Any, z: Tensor) -> Tensor:
    z = z.clone().requires_grad_()
    return torch.autograd.grad(loss(z), z)[0]


def minimiser(x: Tensor, loss: Any, tau: float) -> Tensor:
    """Free points in place of a block's activation that minimise its loss and the term: quasi-Newton, then Newton."""
    term, target, z = TransportCost(tau), Labels(torch.zeros(ROWS).long()), x.clone().requires_grad_()
    descent = torch.optim.LBFGS([z], max_iter=200, tolerance_change=0, line_search_fn="strong_wolfe")

    def total(flat: Tensor) -> Tensor:
        return loss(flat.view_as(x)) + term(x, flat.view_as(x), target)

    def closure() -> Tensor:
        descent.zero_grad()
        value = total(z.flatten())
        value.backward()
        return value

    descent.step(closure)
    flat = z.detach().flatten()
    for _ in range(3):
        hessian = torch.autograd.functional.hessian(total, flat, vectorize=True)
        flat = flat - torch.linalg.solve(hessian, gradient(total, flat))
    return flat.view_as(x)


@pytest.mark.parametrize("tau", [1.0, 0.1, 0.01])
def test_the_minimiser_is_an_implicit_step(tau: float) -> None:
    x, loss = problem()
    step = tau * ROWS * D  # the term is a mean over all elements
    z = minimiser(x, loss, tau)
    assert float((z - (x - step * gradient(loss, z))).abs().max()) < 1e-9


def test_small_steps_are_those_of_gradient_descent() -> None:
    x, loss = problem()
    descent = -gradient(loss, x)
    errors = []
    for tau in (0.01, 0.001, 0.0001):
        direction = (minimiser(x, loss, tau) - x) / (tau * ROWS * D)
        errors.append(float((direction - descent).norm() / descent.norm()))
    assert errors[0] < 0.3
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.5)
    assert errors[2] == pytest.approx(errors[1] / 10, rel=0.1)


def test_value_by_hand() -> None:
    x, h = torch.zeros(2, 1, 2), torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    assert float(transport_cost(x, h, tau=0.25)) == (1 + 4 + 9) / 4 / 0.5


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="tau=0: must be above 0"):
        TransportCost(0)
    with pytest.raises(ValueError, match=r"of shapes \(6,\) and \(5,\): give it to blocks that keep the shape"):
        TransportCost(1.0).build(torch.Size([5]), torch.Size([6]), 4)
