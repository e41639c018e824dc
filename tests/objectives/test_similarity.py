"""Similarity matching against the formula written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lightning_ff import Labels, Pairs, SimilarityMatching
from lightning_ff.objectives import similarity

LABEL = torch.tensor([0, 3, 1, 1, 2, 0])


def in_numpy(rows: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.corrcoef(rows.detach().numpy()))  # cosine of rows centred by their own means


def test_labels_are_alike_within_a_class() -> None:
    wanted = similarity(F.one_hot(LABEL, 4).double())
    same = LABEL[:, None] == LABEL[None]
    torch.testing.assert_close(wanted, torch.where(same, 1.0, -1 / 3).double())


@pytest.mark.parametrize("shape", [(9,), (5, 4, 3)])
def test_the_mean_squared_difference_of_similarities(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    term = SimilarityMatching(0.9)
    term.build(torch.Size(shape), torch.Size((7,)), 4)
    term.double()
    h = torch.randn(6, *shape, dtype=torch.float64, requires_grad=True)
    projected = term.projection(h)
    if len(shape) == 3:
        projected = projected.flatten(2).std(2)
    difference = in_numpy(projected) - in_numpy(F.one_hot(LABEL, 4).double())
    loss = term(torch.zeros(6, 7), h, Labels(LABEL))
    torch.testing.assert_close(loss, 0.9 * difference.square().sum() / 36)
    loss.backward()
    assert h.grad is not None
    assert h.grad.abs().sum() > 0


def test_maps_of_one_position_are_features() -> None:
    h = torch.randn(6, 5, 1, 1)
    torch.testing.assert_close(similarity(h), similarity(h.flatten(1)))


def test_a_dead_activation_has_a_finite_gradient() -> None:
    h = torch.zeros(4, 3, 2, 2, requires_grad=True)
    similarity(h).square().mean().backward()
    assert torch.equal(h.grad, torch.zeros_like(h))  # type: ignore[arg-type]


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="compares labels"):
        SimilarityMatching()(torch.zeros(2, 3), torch.zeros(2, 3), Pairs(1))
    with pytest.raises(ValueError, match="features or maps"):
        SimilarityMatching().build(torch.Size((4, 3)), torch.Size((3,)), 4)
