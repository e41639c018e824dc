"""Probes against logistic regressions solved by scipy, areas by rank sums, and closed forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import mannwhitneyu
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from lightning_ff.metrics import linear_probe, one_versus_rest_probe

SEEDS = [0, 1, 2]
Solver = Callable[[np.ndarray, np.ndarray], np.ndarray]


def samples(n: int, seed: int, classes: int = 3, units: int = 6) -> tuple[Tensor, Tensor]:
    """Overlapping classes, features of different scale, one of them dead."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (n,), generator=g)
    h = torch.randn(n, units, generator=g) + 1.2 * torch.randn(classes, units, generator=g)[label]
    h = h.relu() * torch.logspace(-2, 2, units)
    h[:, 2] = 0
    return h, label


def least(loss: Callable[[np.ndarray], float], size: int) -> np.ndarray:
    return minimize(loss, np.zeros(size), method="BFGS", options={"gtol": 1e-5}).x


def multinomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights `(U + 1, C)`, the last row of biases without penalty."""

    def loss(w: np.ndarray) -> float:
        w = w.reshape(x.shape[1], -1)
        return (w[:-1] ** 2).sum() / 2 - log_softmax(x @ w, axis=1)[np.arange(len(y)), y].sum()

    return least(loss, x.shape[1] * (y.max() + 1)).reshape(x.shape[1], -1)


def balanced(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights `(U + 1,)` of one margin, both sides of the same total weight."""
    weight = (len(y) / 2 / np.bincount(y))[y]

    def loss(w: np.ndarray) -> float:
        return (w[:-1] ** 2).sum() / 2 + (weight * np.logaddexp(0, (1 - 2 * y) * (x @ w))).sum()

    return least(loss, x.shape[1])


def folded(h: Tensor, label: Tensor, folds: int, seed: int, solve: Solver) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and scores of the samples of each fold."""
    x, y = h.double().numpy(), label.numpy()
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        deviation = x[train].std(0)
        z = (x - x[train].mean(0)) / np.where(deviation > 0, deviation, 1)
        z = np.hstack([z, np.ones((len(z), 1))])
        yield test, z[test] @ solve(z[train], y[train])


@pytest.mark.parametrize("folds", [2, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_accuracy_and_recall(seed: int, folds: int) -> None:
    h, label = samples(80, seed)
    found = linear_probe(h.requires_grad_(), label, folds=folds, seed=seed)
    right = np.zeros(80, dtype=bool)
    for test, scores in folded(h.detach(), label, folds, seed, multinomial):
        right[test] = scores.argmax(1) == label[test].numpy()
    assert 0.4 < right.mean() < 1
    assert float(found["accuracy"]) == pytest.approx(right.mean(), abs=1e-6)
    expected = [right[label.numpy() == c].mean() for c in range(3)]
    np.testing.assert_allclose(found["recall"].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_versus_rest(seed: int) -> None:
    h, label = samples(90, seed, classes=5)
    chosen = (label == 3).numpy()
    areas, right = [], np.zeros(90, dtype=bool)
    for test, margin in folded(h, (label == 3).long(), 3, seed, balanced):
        own, rest = margin[chosen[test]], margin[~chosen[test]]
        areas.append(mannwhitneyu(own, rest).statistic / (len(own) * len(rest)))
        right[test] = (margin > 0) == chosen[test]
    found = one_versus_rest_probe(h, label, 3, folds=3, seed=seed)
    shares = [right[chosen].mean(), right[~chosen].mean()]
    assert float(found["auc"]) == pytest.approx(np.mean(areas), abs=1e-6)
    assert float(found["balanced_accuracy"]) == pytest.approx(np.mean(shares), abs=1e-6)
    assert 0.5 < np.mean(shares) < 1


def test_the_scale_of_features_does_not_matter_and_that_of_test_folds_is_unknown() -> None:
    h, label = samples(80, 0)
    plain, scaled = linear_probe(h, label), linear_probe(h.double() * torch.logspace(3, -3, 6) + 5, label)
    assert plain["accuracy"] == scaled["accuracy"]
    label = torch.arange(2).repeat(20)
    h = label[:, None] * 1e-3
    assert float(linear_probe(h, label, folds=2)["accuracy"]) == 1
    h[0] = 1e6  # the fold that trains on it sees no other difference; the other one errs on it alone
    assert float(linear_probe(h, label, folds=2)["accuracy"]) == (10 + 19) / 40


def test_a_class_with_too_few_samples_takes_no_part() -> None:
    label = torch.tensor([0] * 12 + [1] * 12 + [3] * 4 + [5])  # none of 2 and 4
    h = torch.eye(6)[label]
    found = linear_probe(h, label, classes=7, folds=5)
    without = linear_probe(h[:24], label[:24], folds=5)
    assert found["recall"].isnan().tolist() == [False, False, True, True, True, True, True]
    assert found["accuracy"] == without["accuracy"] == 1
    assert linear_probe(h, label, folds=4)["recall"].isnan().tolist() == [False, False, True, False, True, True]
    for chosen in (2, 3, 5):
        assert all(bool(value.isnan()) for value in one_versus_rest_probe(h, label, chosen, folds=5).values())
    assert float(one_versus_rest_probe(h, label, 3, folds=4)["auc"]) == 1


def test_one_class_or_one_sample_has_nothing_to_tell() -> None:
    for n in (1, 20):
        found = linear_probe(torch.rand(n, 3), torch.ones(n, dtype=torch.int64))
        assert bool(found["accuracy"].isnan())
        assert found["recall"].isnan().tolist() == [True, True]
        assert bool(one_versus_rest_probe(torch.rand(n, 3), torch.ones(n, dtype=torch.int64), 1)["auc"].isnan())


def test_dead_units_tell_nothing() -> None:
    label = torch.arange(4).repeat(10)
    assert float(linear_probe(torch.zeros(40, 8), label)["accuracy"]) == 0.25
    found = one_versus_rest_probe(torch.zeros(40, 8), label, 1)
    assert float(found["balanced_accuracy"]) == 0.5
    assert float(found["auc"]) == 0.5


def test_maps_are_one_row_of_units() -> None:
    h, label = samples(60, 1)
    for found, expected in zip(
        linear_probe(h.view(60, 2, 3), label).values(), linear_probe(h, label).values(), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_bad_arguments() -> None:
    h, label = samples(20, 0)
    with pytest.raises(ValueError, match="folds=1: one is left out of every fit, so give at least 2"):
        linear_probe(h, label, folds=1)
    with pytest.raises(ValueError, match=r"features of shape \(20, 6\) and label of shape \(19,\)"):
        one_versus_rest_probe(h, label[1:], 0)
    with pytest.raises(ValueError, match="label has 2 in it: classes=2 takes labels from 0 to 1"):
        linear_probe(h, label, classes=2)
    with pytest.raises(TypeError, match=r"chosen='2' is a str"):
        one_versus_rest_probe(h, label, "2")  # type: ignore[arg-type]
