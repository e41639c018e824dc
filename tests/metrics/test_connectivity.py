"""Connectivity against numpy and scipy, loop by loop, and in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import skew
from torch import Tensor, nn

from lightning_ff.metrics import ensemble_connectivity, excitation_inhibition, inhibition_ratio, weight_statistics

SEEDS = [0, 1, 2]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def membership(classes: int, units: int, seed: int) -> Tensor:
    return torch.rand(classes, units, generator=torch.Generator().manual_seed(seed)) < 0.3


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [(5, 7), (6, 4), (1, 1, 3, 3), (3, 1)])
def test_weight_statistics(shape: tuple[int, ...], seed: int) -> None:
    weight, bias = normal(*shape, seed=seed).exp() - 1, normal(shape[0] + 1, seed=seed + 10)
    weight.view(-1)[0] = 0  # neither sign
    found = weight_statistics(weight, bias)
    assert list(weight_statistics(weight)) == ["negative", "mean", "median", "skew"]
    for prefix, part in {"": weight, "bias_": bias}.items():
        values = part.double().numpy().ravel()
        expected = {
            "negative": (values < 0).mean(),
            "mean": values.mean(),
            "median": np.median(values),
            "skew": skew(values),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[prefix + name].numpy(), value, atol=1e-6, err_msg=prefix + name)


def test_weights_of_which_all_are_equal_have_no_skew() -> None:
    for value in (0.0, 0.1, -1 / 3):  # the computed mean of the last two is another number
        found = weight_statistics(torch.full((7, 11), value, dtype=torch.float64))
        assert bool(found["skew"].isnan())
        assert float(found["negative"]) == float(value < 0)
    mirrored = normal(6, 6, seed=0)
    assert float(weight_statistics(torch.cat([mirrored, -mirrored]))["skew"]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [1, 6])
def test_excitation_and_inhibition(n: int, seed: int) -> None:
    layer, x = nn.Linear(9, 4), normal(n, 9, seed=seed).relu()
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(seed))
    excitation, inhibition = excitation_inhibition(layer.weight, x)
    assert not excitation.requires_grad
    assert excitation.shape == inhibition.shape == (n, 4)
    w, values = layer.weight.detach().double().numpy(), x.double().numpy()
    for i in range(n):
        for u in range(4):
            drive = w[u] * values[i]
            assert float(excitation[i, u]) == pytest.approx(drive[drive > 0].sum(), abs=1e-6)
            assert float(inhibition[i, u]) == pytest.approx(-drive[drive < 0].sum(), abs=1e-6)
    torch.testing.assert_close((excitation - inhibition).float() + layer.bias, layer(x))


def test_mean_inputs_give_mean_parts() -> None:
    weight, x = normal(5, 8, seed=3), normal(40, 8, seed=4).relu()
    for of_mean, each in zip(
        excitation_inhibition(weight, x.double().mean(0, keepdim=True)), excitation_inhibition(weight, x), strict=True
    ):
        torch.testing.assert_close(of_mean[0], each.mean(0), atol=1e-9, rtol=0)


def test_a_class_without_samples_has_neither() -> None:
    x = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]])
    excitation, inhibition = excitation_inhibition(torch.tensor([[1.0, -1.0]]), x)
    assert excitation[0].tolist() == [1.0]
    assert inhibition[0].tolist() == [2.0]
    assert bool(excitation[1].isnan().all() & inhibition[1].isnan().all())


@pytest.mark.parametrize("seed", SEEDS)
def test_inhibition_ratio(seed: int) -> None:
    excitation, inhibition = normal(4, 20, seed=seed).exp(), normal(4, 20, seed=seed + 5).exp()
    members = membership(4, 20, seed)
    members[1], members[2] = False, True  # an empty ensemble, and one of all units
    own, others = inhibition_ratio(excitation, inhibition, members)
    for c in range(4):
        for found, chosen in ((own, members[c]), (others, ~members[c])):
            if not bool(chosen.any()):
                assert bool(found[c].isnan())
                continue
            e, i = (part[c].double().numpy()[chosen.numpy()] for part in (excitation, inhibition))
            assert float(found[c]) == pytest.approx(np.average(i / e, weights=e), abs=1e-6)


def test_units_that_nothing_excites_are_inhibited_without_bound() -> None:
    nothing, one = torch.zeros(1, 2), torch.ones(1, 2)
    members = torch.tensor([[True, False]])
    assert [float(r) for r in inhibition_ratio(nothing, one, members)] == [torch.inf, torch.inf]
    assert [float(r) for r in inhibition_ratio(one, nothing, members)] == [0, 0]
    assert all(bool(r.isnan()) for r in inhibition_ratio(nothing, nothing, members))


@pytest.mark.parametrize("seed", SEEDS)
def test_ensemble_connectivity(seed: int) -> None:
    weight, before, after = normal(12, 15, seed=seed), membership(4, 15, seed), membership(4, 12, seed + 1)
    before[:, 0] = after[:, 0] = True
    before[1], after[2] = False, False
    found = ensemble_connectivity(weight, before, after)
    for c in range(4):
        for d in range(4):
            block = weight.double().numpy()[np.ix_(after[c].numpy(), before[d].numpy())]
            if block.size:
                assert float(found[c, d]) == pytest.approx(block.mean(), abs=1e-6)
            else:
                assert bool(found[c, d].isnan())
    assert int(found.isnan().sum()) == 4 + 4 - 1


def test_ensembles_that_drive_their_own_class() -> None:
    members = torch.eye(3).repeat_interleave(4, dim=1).bool()
    weight = members.T.float() @ members.float() * 1.5 - 0.5
    found = ensemble_connectivity(weight, members, members)
    torch.testing.assert_close(found, torch.eye(3, dtype=torch.float64) * 1.5 - 0.5)


def test_bad_arguments() -> None:
    weight = torch.ones(3, 4)
    with pytest.raises(ValueError, match=r"weight of shape \(0, 4\) has no entries"):
        weight_statistics(weight[:0])
    with pytest.raises(ValueError, match=r"bias of shape \(0,\) has no entries"):
        weight_statistics(weight, torch.ones(0))
    with pytest.raises(ValueError, match=r"x has -0.5 in it: excitation and inhibition need inputs of 0 or more"):
        excitation_inhibition(weight, torch.tensor([[1.0, torch.nan, -0.5, 0.0]]))
    with pytest.raises(ValueError, match=r"weight of shape \(3, 4\) and x of shape \(2, 3\)"):
        excitation_inhibition(weight, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"give all three as \(C, U\)"):
        inhibition_ratio(torch.ones(2, 3), torch.ones(2, 3), torch.ones(1, 3).bool())
    with pytest.raises(ValueError, match=r"give \(U, U_before\), \(C, U_before\) and \(C, U\)"):
        ensemble_connectivity(weight, torch.ones(2, 3).bool(), torch.ones(2, 4).bool())
