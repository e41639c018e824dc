"""Sparsity against numpy, and its streamed form against the whole at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ff.metrics import ClassStatistics, active_fraction, hoyer_sparsity, treves_rolls_sparsity

CLASSES, UNITS = 4, 9


def activations(n: int = 60, units: int = UNITS) -> Tensor:
    g = torch.Generator().manual_seed(0)
    h = torch.randn(n, units, generator=g).relu() * torch.rand(n, 1, generator=g) * 5
    h[::7] = 0
    return h


def hoyer(h: np.ndarray) -> np.ndarray:
    units = h.shape[1]
    with np.errstate(invalid="ignore"):
        return (np.sqrt(units) - np.abs(h).sum(1) / np.sqrt((h**2).sum(1))) / (np.sqrt(units) - 1)


@pytest.mark.parametrize("units", [2, 9, 500])
def test_hoyer(units: int) -> None:
    h = activations(units=units)
    np.testing.assert_allclose(hoyer_sparsity(h).numpy(), hoyer(h.double().numpy()), atol=1e-6)
    one, equal = torch.eye(units)[:1] * 3, torch.full((1, units), 0.7)
    assert float(hoyer_sparsity(one)) == pytest.approx(1, abs=1e-6)
    assert float(hoyer_sparsity(equal)) == pytest.approx(0, abs=1e-6)
    assert bool(hoyer_sparsity(torch.zeros(1, units)).isnan())
    torch.testing.assert_close(hoyer_sparsity(-3 * h), hoyer_sparsity(h), equal_nan=True)


def test_maps_are_one_row_of_units() -> None:
    h = torch.rand(5, 3, 4, 2)
    for measure in (hoyer_sparsity, treves_rolls_sparsity, active_fraction):
        torch.testing.assert_close(measure(h), measure(h.flatten(1)))


def test_treves_rolls_and_the_active_share() -> None:
    h = activations()
    values = h.double().numpy()
    with np.errstate(invalid="ignore"):
        expected = 1 - values.mean(1) ** 2 / (values**2).mean(1)
    np.testing.assert_allclose(treves_rolls_sparsity(h).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(active_fraction(h).numpy(), (values > 0).mean(1), atol=1e-7)


def test_one_unit_has_no_sparsity() -> None:
    with pytest.raises(ValueError, match="have 1 unit: sparsity needs at least 2"):
        hoyer_sparsity(torch.ones(3, 1))


@pytest.mark.parametrize("parts", [1, 3])
def test_streamed_statistics_are_those_of_the_whole(parts: int) -> None:
    h, label = activations(), torch.arange(60) % CLASSES
    h[:, 5] = 0
    metric = ClassStatistics(CLASSES, UNITS)
    for rows, labels in zip(h.chunk(parts), label.chunk(parts), strict=True):
        metric.update(rows, labels)
    found, values, classes = metric.compute(), h.double().numpy(), label.numpy()
    for c in range(CLASSES):
        own = values[classes == c]
        expected = {
            "count": len(own),
            "hoyer": np.nanmean(hoyer(own)),
            "active_fraction": (own > 0).mean(),
            "mean": own.mean(0),
            "variance": own.var(0),
            "active": (own > 0).mean(0),
            "highest": own.max(0),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][c].numpy(), value, atol=1e-6, err_msg=name)
    assert int(found["dead_units"]) == 1
    metric.reset()
    assert float(metric.count.sum()) == 0


def test_a_class_without_samples_is_nan() -> None:
    metric = ClassStatistics(3, UNITS)
    metric.update(activations(6), torch.tensor([0, 2, 0, 2, 2, 0]))
    metric.update(activations(6)[:0], torch.zeros(0, dtype=torch.int64))
    for name, value in metric.compute().items():
        if name == "count":
            assert value.tolist() == [3, 0, 3]
        elif name != "dead_units":
            assert bool(value[1].isnan().all()), name
            assert not bool(value[[0, 2]].isnan().any()), name


def test_dead_samples_count_for_all_but_sparsity() -> None:
    metric = ClassStatistics(1, 4)
    metric.update(torch.tensor([[0.0, 3.0, 4.0, 0.0], [0.0] * 4]), torch.zeros(2, dtype=torch.int64))
    found = metric.compute()
    assert float(found["hoyer"]) == pytest.approx(0.6)
    assert float(found["treves_rolls"]) == pytest.approx(1 - 49 / 100)
    assert float(found["active_fraction"]) == 0.25
    assert found["mean"].tolist() == [[0, 1.5, 2, 0]]


def test_activations_below_zero_have_their_own_highest() -> None:
    metric = ClassStatistics(2, 3)
    metric.update(torch.tensor([[-2.0, -1.0, 0.5], [-3.0, -0.5, -0.1]]), torch.tensor([1, 1]))
    assert metric.compute()["highest"][1].tolist() == [-2.0, -0.5, 0.5]


def test_a_small_variance_beside_a_large_mean() -> None:
    h = 100 + 1e-3 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    metric = ClassStatistics(1, 4)
    metric.update(h, torch.zeros(500, dtype=torch.int64))
    np.testing.assert_allclose(metric.compute()["variance"][0].numpy(), h.double().numpy().var(0), rtol=1e-4)


def test_other_shapes_are_refused() -> None:
    metric = ClassStatistics(2, 8)
    metric.update(torch.ones(3, 2, 2, 2), torch.tensor([0, 1, 1]))
    for h, n in ((torch.ones(3, 7), 3), (torch.ones(3, 8), 2)):
        with pytest.raises(ValueError, match=r"activations of shape .* and labels of shape .*: units=8 takes"):
            metric.update(h, torch.zeros(n, dtype=torch.int64))


def test_two_processes_make_one() -> None:
    """What torchmetrics does over processes: states are summed, or the largest taken."""
    h, label = activations(), torch.arange(60) % CLASSES
    whole, parts = ClassStatistics(CLASSES, UNITS), [ClassStatistics(CLASSES, UNITS) for _ in range(2)]
    whole.update(h, label)
    for part, rows, labels in zip(parts, h.split([20, 40]), label.split([20, 40]), strict=True):
        part.update(rows, labels)
    parts[0].merge_state(parts[1])
    for name, value in whole.compute().items():
        torch.testing.assert_close(parts[0].compute()[name], value, equal_nan=True)
