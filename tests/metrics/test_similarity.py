"""Similarity against numpy and scipy, and the selection of samples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from lightning_ff.metrics import balanced_indices, class_mean_rdm, compare_rdms, sample_rdm

SEEDS = [0, 1, 2]


def activations(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).relu()


@pytest.mark.parametrize("seed", SEEDS)
def test_rdms_are_numpys_correlations(seed: int) -> None:
    h = activations(9, 4, 5, seed=seed)
    expected = 1 - np.corrcoef(h.flatten(1).double().numpy())
    np.testing.assert_allclose(sample_rdm(h).numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(class_mean_rdm(h.flatten(1)).numpy(), expected, atol=1e-9)
    assert sample_rdm(h).diagonal().tolist() == [0.0] * 9
    np.testing.assert_allclose(sample_rdm(3 * h + 7).numpy(), expected, atol=1e-5)  # rounded to float32


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7])
def test_a_row_of_equal_units_is_like_nothing(value: float) -> None:
    mean = activations(4, 7, seed=0).double()
    mean[1] = value  # of which the computed mean may be another number
    mean[2] = torch.nan  # a class without samples
    found = class_mean_rdm(mean)
    assert bool(found[1:3].isnan().all() & found[:, 1:3].isnan().all())
    assert float(found[0, 3]) == pytest.approx(1 - np.corrcoef(mean[[0, 3]].numpy())[0, 1], abs=1e-9)
    assert bool(class_mean_rdm(mean[:, :1]).isnan().all())  # one unit has no profile


def test_one_sample_or_none() -> None:
    assert sample_rdm(activations(1, 5, seed=0)).tolist() == [[0.0]]
    assert sample_rdm(torch.zeros(0, 5)).shape == (0, 0)


def reference(a: Tensor, b: Tensor) -> float:
    above = np.triu_indices(len(a), 1)
    one, other = a.numpy()[above], b.numpy()[above]
    kept = ~(np.isnan(one) | np.isnan(other))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns where all are equal
        return float(spearmanr(one[kept], other[kept]).statistic)


@pytest.mark.parametrize("levels", [2, 4, 10**6])
@pytest.mark.parametrize("seed", SEEDS)
def test_comparison_is_scipys_with_ties_and_nan(seed: int, levels: int) -> None:
    g = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(levels, (12, 12), generator=g).double() / levels for _ in range(2))
    assert float(compare_rdms(a, b)) == pytest.approx(reference(a, b), abs=1e-9)
    assert abs(reference(a, b)) > 1e-3
    a[0, 3:5], b[3], b[0, 4] = torch.nan, torch.nan, torch.nan
    assert float(compare_rdms(a, b)) == pytest.approx(reference(a, b), abs=1e-9)
    below = torch.ones_like(a).tril().bool()
    assert float(compare_rdms(a.masked_fill(below, 99), b)) == float(compare_rdms(a, b))


def test_order_is_all_that_counts() -> None:
    a = sample_rdm(activations(8, 30, seed=0))
    assert float(compare_rdms(a, a)) == pytest.approx(1)
    assert float(compare_rdms(a, a.exp())) == pytest.approx(1)
    assert float(compare_rdms(a, -a)) == pytest.approx(-1)


def test_no_order_no_comparison() -> None:
    a = sample_rdm(activations(4, 9, seed=0))
    for b in (torch.ones_like(a), torch.full_like(a, torch.nan)):
        assert bool(compare_rdms(a, b).isnan())
    assert bool(compare_rdms(a[:2, :2], a[:2, :2]).isnan())  # one pair


CLASSES, N, CAP = 4, 90, 7


def samples() -> tuple[Tensor, Tensor]:
    """Labels, uneven, and indices with gaps; class 3 has fewer than the cap, class 2 none."""
    g = torch.Generator().manual_seed(0)
    label = torch.multinomial(torch.tensor([5.0, 3.0, 0.0, 0.3]), N, replacement=True, generator=g)
    return label, torch.randperm(10 * N, generator=g)[:N]


def kept(label: Tensor, index: Tensor, seed: int = 0) -> list[int]:
    return index[balanced_indices(label, CAP, index, seed)].tolist()


def test_balanced_and_capped() -> None:
    label, index = samples()
    chosen = balanced_indices(label, CAP, index)
    wanted = label.bincount(minlength=CLASSES).clamp(max=CAP)
    assert wanted.tolist()[2:] == [0, int((label == 3).sum())]
    assert 0 < int(wanted[3]) < CAP
    assert label[chosen].bincount(minlength=CLASSES).tolist() == wanted.tolist()
    pairs = list(zip(label[chosen].tolist(), index[chosen].tolist(), strict=True))
    assert pairs == sorted(set(pairs))


def test_the_same_samples_in_any_order_and_any_parts() -> None:
    label, index = samples()
    expected = kept(label, index)
    for seed in SEEDS:
        order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
        assert kept(label[order], index[order]) == expected
        parts = [part[balanced_indices(label[part], CAP, index[part])] for part in order.split([50, 1, 39])]
        rest = torch.cat(parts)
        assert kept(label[rest], index[rest]) == expected
    assert kept(label, index, seed=1) != expected


def test_a_sample_counts_once() -> None:
    label, index = samples()
    padded = torch.cat([torch.arange(N), torch.arange(30)])
    assert kept(label[padded], index[padded]) == kept(label, index)


def test_every_sample_has_the_same_chance() -> None:
    label, index, seeds = torch.zeros(20, dtype=torch.int64), torch.arange(20), 2000
    times = torch.zeros(20)
    for seed in range(seeds):
        times[balanced_indices(label, 5, index, seed)] += 1
    deviation = (0.25 * 0.75 / seeds) ** 0.5
    assert float((times / seeds - 0.25).abs().max()) < 4 * deviation


def test_none_to_choose_from() -> None:
    assert balanced_indices(torch.zeros(0, dtype=torch.int64), 3, torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_bad_arguments() -> None:
    label, index = samples()
    with pytest.raises(ValueError, match="per_class=0: keep at least 1"):
        balanced_indices(label, 0, index)
    with pytest.raises(TypeError, match=r"per_class=2\.5 is a float"):
        balanced_indices(label, 2.5, index)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"label of shape \(90,\) and index of shape \(89,\)"):
        balanced_indices(label, 3, index[1:])
    with pytest.raises(ValueError, match=r"mean of shape \(3,\): give one row"):
        class_mean_rdm(torch.ones(3))
    with pytest.raises(ValueError, match=r"matrices of shapes \(3, 3\) and \(4, 4\)"):
        compare_rdms(torch.ones(3, 3), torch.ones(4, 4))
