"""Overlap by chance: by drawing, by permuting, and in closed form."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ff.metrics import chance_jaccard, jaccard, leave_one_out_ensemble, null_jaccard

SEEDS = [0, 1, 2]


def samples(seed: int, n: int = 50, units: int = 30, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Each class has its own units."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (n,), generator=g)
    own = torch.rand(classes, units, generator=g) < 0.2
    return (torch.randn(n, units, generator=g) + 3 * own[label]).relu(), label


@pytest.mark.parametrize("k", [0.3, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_permuted_classes(seed: int, k: float) -> None:
    h, label = samples(seed)
    found = null_jaccard(h, label, classes=5, k=k, permutations=6, seed=seed)
    assert found.shape == (6, 5, 5)
    generator = torch.Generator().manual_seed(seed)
    for matrix in found.double().numpy():
        shuffled = label[torch.randperm(len(label), generator=generator)].numpy()
        for c in range(5):
            for d in range(5):
                one, other = (members(h.double().numpy()[shuffled == each], k) for each in (c, d))
                if one | other:
                    assert matrix[c, d] == pytest.approx(len(one & other) / len(one | other), abs=1e-6)
                else:
                    assert np.isnan(matrix[c, d])
    assert bool(found[:, 4, 4].isnan().all())  # no samples


def members(own: np.ndarray, k: float) -> set[int]:
    """Units above `1 + k` times the mean of the others, by a loop."""
    if not len(own):
        return set()
    mean = own.mean(0)
    return {i for i in range(len(mean)) if mean[i] > (1 + k) * np.delete(mean, i).mean()}


@pytest.mark.parametrize("seed", SEEDS)
def test_classes_with_units_of_their_own_overlap_less_than_permuted_ones(seed: int) -> None:
    h, label = samples(seed, n=400)
    mean = torch.stack([h[label == c].mean(0) for c in range(4)])
    above = torch.ones(4, 4).triu(1).bool()
    observed = jaccard(leave_one_out_ensemble(mean, k=0.3))[above].mean()
    null = null_jaccard(h, label, k=0.3, permutations=50)[:, above].nanmean(1)
    assert observed < null.min()


def test_permutations_follow_the_seed_alone() -> None:
    h, label = samples(0)
    first = null_jaccard(h, label, permutations=4)
    torch.manual_seed(9)
    torch.testing.assert_close(null_jaccard(h, label, permutations=4), first, equal_nan=True)
    torch.testing.assert_close(null_jaccard(h, label, permutations=2), first[:2], equal_nan=True)
    assert not torch.equal(null_jaccard(h, label, permutations=4, seed=1).nan_to_num(9), first.nan_to_num(9))


def test_dead_units_have_no_overlap() -> None:
    label = torch.arange(3).repeat(4)
    assert bool(null_jaccard(torch.zeros(12, 5), label, permutations=2).isnan().all())
    assert null_jaccard(torch.zeros(0, 5), label[:0], classes=2, permutations=2).shape == (2, 2, 2)


def test_chance_by_all_pairs_of_sets() -> None:
    units, sizes = 6, [0, 1, 3, 4, 6]
    drawn = torch.arange(units) < torch.tensor(sizes)[:, None]
    found = chance_jaccard(drawn)
    for c, one in enumerate(sizes):
        for d, other in enumerate(sizes):
            if one + other == 0:
                assert bool(found[c, d].isnan())
                continue
            pairs = [
                len({*a} & {*b}) / len({*a} | {*b})
                for a in combinations(range(units), one)
                for b in combinations(range(units), other)
            ]
            assert float(found[c, d]) == pytest.approx(np.mean(pairs), abs=1e-9)


def test_bad_arguments() -> None:
    h, label = samples(0)
    with pytest.raises(ValueError, match="permutations=0: draw at least 1"):
        null_jaccard(h, label, permutations=0)
    with pytest.raises(ValueError, match="label has 3 in it: classes=2 takes labels from 0 to 1"):
        null_jaccard(h, label, classes=2)
    with pytest.raises(ValueError, match=r"h of shape \(50, 30\) and label of shape \(49,\)"):
        null_jaccard(h, label[1:])
