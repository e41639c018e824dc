"""Histograms of weights and of inhibition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_ff.figures import inhibition_histograms, weight_histograms
from tests.figures.reading import bars, legend, panels, words

NAN, INF = float("nan"), float("inf")


def test_weights_are_counted_by_size_and_sign() -> None:
    weight = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)) - 0.3
    figure = weight_histograms({"block00": weight, "block01": torch.tensor([-1.0, 0.0, 0.0, 5.0])}, bins=20)
    first, second = panels(figure)
    limit = weight.abs().max().item()
    edges = np.linspace(-limit, limit, 21)
    counts, _ = np.histogram(weight.double().numpy(), edges)
    (series,) = bars(first)
    np.testing.assert_allclose([top for _, _, top in series], counts / 1200)
    np.testing.assert_allclose([x for x, _, _ in series], (edges[:-1] + edges[1:]) / 2, atol=1e-9)
    colors = [bar.get_facecolor() for bar in first.patches]
    assert len(set(colors[:10])) == len(set(colors[10:])) == 1
    assert colors[0] != colors[10]
    assert words(first) == [f"{100 * (weight < 0).double().mean():.1f} % negative"]
    assert words(second) == ["25.0 % negative"]
    tops = {round(x, 2): top for x, _, top in bars(second)[0] if top}
    assert tops == {-0.75: 0.25, 0.25: 0.5, 4.75: 0.25}  # 0 is not negative
    assert first.get_yscale() == "log"
    assert [axis.get_title() for axis in panels(figure)] == ["block00", "block01"]
    assert (first.get_xlabel(), first.get_ylabel()) == ("weight", "share of weights")


def test_each_weight_is_seen() -> None:
    weight = torch.cat([torch.zeros(9999), torch.ones(1)])
    (axis,) = panels(weight_histograms({"block00": weight}))
    assert axis.get_ylim()[0] < 1e-4
    assert axis.get_ylim()[1] > 1


def test_weights_that_are_not_finite_or_not_there() -> None:
    weights = {"some": torch.tensor([NAN, -1.0, INF, 1.0]), "none": torch.tensor([NAN]), "zero": torch.zeros(2, 3, 1)}
    some, none, zero = panels(weight_histograms(weights))
    assert [words(some), words(none), words(zero)] == [["50.0 % negative"], ["no weights"], ["0.0 % negative"]]
    assert sum(top for _, _, top in bars(some)[0]) == sum(top for _, _, top in bars(zero)[0]) == 1.0


def test_ratios_of_members_and_others() -> None:
    members, others = torch.tensor([[0.1, 0.2], [0.0, NAN]]), torch.tensor([1.0, 10.0, 100.0, INF])
    figure = inhibition_histograms({"block01": (members, others)}, bins=10)
    (axis,) = panels(figure)
    low, high = np.percentile([0.1, 0.2, 1, 10, 100], [1, 99])
    edges = np.geomspace(low, high, 11)
    for series, values in zip(bars(axis), ([0.1, 0.2, 0.0], [1.0, 10.0, 100.0]), strict=True):
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        np.testing.assert_allclose([top for _, _, top in series], counts / 3)
        assert sum(top for _, _, top in series) == pytest.approx(1.0)
    assert [line.get_xdata()[0] for line in axis.lines] == [pytest.approx(low), pytest.approx(10.0)]  # medians
    assert axis.get_xscale() == "log"
    assert axis.get_xlim()[0] < low < high < axis.get_xlim()[1]
    assert legend(figure) == ["members", "other units"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("inhibition / excitation", "share of units")


@pytest.mark.parametrize(
    ("members", "others", "sums"),
    [([], [], None), ([0.0, NAN], [INF], None), ([2.0], [2.0], [1.0, 1.0]), ([], [1.0, 3.0], [0.0, 1.0])],
    ids=["none", "nothing above 0", "equal", "no members"],
)
def test_ratios_that_are_few(members: list[float], others: list[float], sums: list[float] | None) -> None:
    (axis,) = panels(inhibition_histograms({"block01": (members, others)}))
    assert words(axis) == (["no ratios"] if sums is None else [])
    assert [sum(top for _, _, top in series) for series in bars(axis)] == (sums or [])


def test_a_narrow_range_has_ticks() -> None:
    figure = inhibition_histograms({"block01": ([2.0, 3.0], [5.0, 7.0])})
    (axis,) = panels(figure)
    low, high = axis.get_xlim()
    figure.canvas.draw()
    assert [tick for tick in axis.get_xticks() if low < tick < high]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"weights=\{\}: give weights by name, at least one"):
        weight_histograms({})
    for bins in (0, 7):
        with pytest.raises(ValueError, match=f"bins={bins}: give an even number"):
            weight_histograms({"a": torch.ones(3)}, bins=bins)
    with pytest.raises(ValueError, match="bins=0: must be at least 1"):
        inhibition_histograms({"a": ([1.0], [2.0])}, bins=0)
    with pytest.raises(ValueError, match=r"ratios=\{\}: give ratios of members and of others by name"):
        inhibition_histograms({})
