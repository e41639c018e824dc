"""Ensembles against numpy and scipy, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from lightning_ff.metrics import (
    ensemble_sizes,
    jaccard,
    kolmogorov_smirnov_ensemble,
    kolmogorov_smirnov_p_values,
    leave_one_out_ensemble,
    mean_jaccard,
    quantile_median_ensemble,
    selectivity_order,
    selectivity_shares,
    shared_units,
)


def activations(n: int = 40, units: int = 12) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return (torch.randn(n, units, generator=g) + torch.linspace(-1, 2, units)).relu()


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("n", [1, 7, 40])
def test_quantile_median(n: int, quantile: float) -> None:
    h = activations(n)
    values = h.double().numpy()
    expected = np.median(values, axis=0) > np.quantile(values, quantile)
    np.testing.assert_array_equal(quantile_median_ensemble(h, quantile).numpy(), expected)


@pytest.mark.parametrize("k", [0.5, 1.0, 2.0])
def test_leave_one_out(k: float) -> None:
    mean = torch.stack([activations().mean(0), activations().mean(0).flip(0) ** 3])
    expected = []
    for row in mean.double().numpy():
        others = np.array([np.delete(row, i).mean() for i in range(len(row))])
        expected.append((row - others) / others > k)
    np.testing.assert_array_equal(leave_one_out_ensemble(mean.double(), k).numpy(), np.array(expected))
    assert 0 < np.array(expected).sum() < mean.numel()
    assert torch.equal(leave_one_out_ensemble(mean.double(), k)[0], leave_one_out_ensemble(mean[0].double(), k))


def test_where_all_others_are_dead_the_one_is_the_ensemble() -> None:
    assert leave_one_out_ensemble(torch.tensor([0.0, 0.0, 3.0])).tolist() == [False, False, True]
    assert leave_one_out_ensemble(torch.zeros(3)).tolist() == [False, False, False]


def test_kolmogorov_smirnov_p_values_are_scipys() -> None:
    h = activations(30, 7)
    found = kolmogorov_smirnov_p_values(h)
    for i in range(7):
        for j in range(7):
            expected = 1.0 if i == j else ks_2samp(h[:, i].numpy(), h[:, j].numpy(), method="asymp").pvalue
            assert float(found[i, j]) == pytest.approx(expected, abs=1e-6)


def test_kolmogorov_smirnov_does_not_depend_on_the_order_of_units() -> None:
    h = torch.rand(60, 11, generator=torch.Generator().manual_seed(1))
    h[:, 3:5] += 0.8
    found = kolmogorov_smirnov_ensemble(h, level=0.2)
    assert found.nonzero().flatten().tolist() == [3, 4]
    order = torch.randperm(11, generator=torch.Generator().manual_seed(2))
    assert torch.equal(kolmogorov_smirnov_ensemble(h[:, order], level=0.2), found[order])
    p = np.array([[ks_2samp(a, b, method="asymp").pvalue for b in h.T.numpy()] for a in h.T.numpy()])
    np.fill_diagonal(p, 0)
    np.testing.assert_array_equal(found.numpy(), p.sum(1) / 10 < 0.2)


MEMBERS = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()


def test_sharing_by_hand() -> None:
    assert shared_units(MEMBERS).tolist() == [[3, 2, 0, 0], [2, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    matrix = jaccard(MEMBERS)
    assert matrix[:2, :3].tolist() == [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0]]
    assert bool(matrix[2, 3].isnan())
    assert float(mean_jaccard(MEMBERS)) == pytest.approx(0.5 / 5)  # of six pairs one is empty on both sides
    assert selectivity_order(MEMBERS).tolist() == [1, 2, 1, 0, 2]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sizes_and_sharing(seed: int) -> None:
    members = torch.rand(7, 40, generator=torch.Generator().manual_seed(seed)) < 0.2
    sets = [{int(u) for u in row.nonzero()} for row in members]
    assert ensemble_sizes(members).tolist() == [len(one) for one in sets]
    assert shared_units(members).tolist() == [[len(one & other) for other in sets] for one in sets]
    order = np.array([sum(u in one for one in sets) for u in range(40)])
    expected = [(order == 0).mean(), (order == 1).mean(), (order == 2).mean(), (order >= 3).mean()]
    np.testing.assert_allclose(selectivity_shares(members).numpy(), expected, atol=1e-7)
    assert min(expected) > 0


def test_shares_of_one_class() -> None:
    assert selectivity_shares(MEMBERS[:1]).tolist() == pytest.approx([0.4, 0.6, 0, 0])
    assert selectivity_shares(MEMBERS[:0]).tolist() == [1, 0, 0, 0]
    assert shared_units(MEMBERS[:0]).shape == (0, 0)


def test_a_class_without_samples_has_no_ensemble() -> None:
    nothing = activations()[:0]
    mean = torch.stack([activations().mean(0), nothing.mean(0)])
    assert ensemble_sizes(leave_one_out_ensemble(mean, k=0.5))[0] > 0
    for members in (
        leave_one_out_ensemble(mean, k=0.5)[1],
        quantile_median_ensemble(nothing),
        kolmogorov_smirnov_ensemble(nothing),
        kolmogorov_smirnov_ensemble(activations(1)),
    ):
        assert members.tolist() == [False] * 12
    assert bool(kolmogorov_smirnov_p_values(activations(1)).isnan().all())


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="quantile=1: must lie in"):
        quantile_median_ensemble(activations(), quantile=1)
    with pytest.raises(ValueError, match="level=0: must lie in"):
        kolmogorov_smirnov_ensemble(activations(), level=0)
