"""Charts: positions of points, ticks at round numbers, labels that do not overlap."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from lightning_ff.report.curves import Line, chart, mean_of, thinned, ticks
from lightning_ff.report.series import Series
from tests.report.page_reader import Page


def drawn(*lines: Line) -> Page:
    made = chart(lines, "a chart", "loss", width=520, height=250)
    assert made is not None
    return Page(made)


def points(page: Page) -> list[np.ndarray]:
    """Points of every line `(n, 2)`."""
    found = [a["points"] or "" for tag, a in page.tags if tag == "polyline"]
    return [np.array([[float(v) for v in pair.split(",")] for pair in each.split()]) for each in found]


def test_points_lie_on_linear_axes() -> None:
    """Steps from 0 to 100 over 46 to 494, values 1 to 2 with 4 % room over 216 to 26."""
    (found,) = points(drawn(Line(Series.of([(0, 1.0), (50, 2.0), (100, 1.5)]), "red")))
    np.testing.assert_allclose(found[:, 0], [46, 270, 494], atol=0.06)
    height = 190 / 1.08
    np.testing.assert_allclose(found[:, 1], 216 - height * (np.array([0, 1, 0.5]) + 0.04), atol=0.06)


def test_a_wide_range_of_positive_values_is_logarithmic() -> None:
    page = drawn(Line(Series.of([(0, 100.0), (10, 1.0), (20, 10.0)]), "red"))
    np.testing.assert_allclose(points(page)[0][:, 1], [26, 216, 121], atol=0.06)
    assert "loss (logarithmic)" in page.text
    assert "logarithmic" not in drawn(Line(Series.of([(0, 100.0), (10, 0.0)]), "red")).text


def test_what_is_not_finite_is_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    (found,) = points(drawn(Line(Series.of([(0, nan), (1, 1.0), (2, 2.0), (3, inf)]), "red")))
    assert len(found) == 2
    assert chart([Line(Series.of([(0, nan)]), "red")], "a chart", "loss") is None
    assert chart([], "a chart", "loss") is None


def test_one_point_and_one_value_are_drawn() -> None:
    assert [tag for tag, _ in drawn(Line(Series.of([(0, 0.0)]), "red")).tags].count("circle") == 1
    (found,) = points(drawn(Line(Series.of([(5, 3.0), (9, 3.0)]), "red")))
    assert np.ptp(found[:, 1]) == 0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 4), (0.82, 0.83), (0, 34799), (1e-7, 3e-7)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert min(found) >= low - 1e-12
    assert max(found) <= high + 1e-12
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
    assert f"{steps[0]:.0e}"[0] in "125"


def test_many_points_become_means_of_neighbours() -> None:
    series = Series.of((step, step % 2) for step in range(1000))
    thin = thinned(series, 100)
    assert len(thin.steps) == 100
    np.testing.assert_allclose(thin.values, 0.5)
    assert thinned(series, 1000) is series


def test_the_mean_is_over_steps_that_all_runs_have() -> None:
    runs = [Series.of([(0, 1.0), (5, 2.0), (10, 3.0)]), Series.of([(0, 3.0), (10, 5.0), (15, 9.0)])]
    mean = mean_of(runs)
    assert mean is not None
    assert (mean.steps.tolist(), mean.values.tolist()) == ([0, 10], [2.0, 4.0])
    assert mean_of([runs[0], Series.of([(7, 1.0)])]) is None


def test_names_stay_above_the_axis() -> None:
    """Of lines that all end low, though more of them than there is room for below their ends."""
    page = drawn(*(Line(Series.of([(0, 9.0), (9, k / 100)]), "#0072b2", f"L{k}") for k in range(6)))
    places = sorted(float(a["y"] or 0) - 3.5 for tag, a in page.tags if tag == "text" and a["class"] == "end")
    np.testing.assert_allclose(places, 216 - 10.5 * np.arange(5, -1, -1), atol=0.06)


def test_names_at_one_place_are_moved_apart() -> None:
    lines = [Line(Series.of([(0, 0.0), (9, 1.0 + k / 1000)]), "#0072b2", f"L{k}") for k in range(4)]
    page = drawn(*lines, Line(Series.of([(0, 0.0), (4, 1.0)]), "#e69f00", "early"))
    ends = [a for tag, a in page.tags if tag == "text" and a["class"] == "end"]
    places = sorted(float(a["y"] or 0) for a in ends if float(a["x"] or 0) > 400)
    assert min(b - a for a, b in pairwise(places)) == pytest.approx(10.5, abs=0.11)
    (early,) = [float(a["y"] or 0) for a in ends if float(a["x"] or 0) < 400]
    assert early < places[1]  # far from the others, it stays where its line ends
    assert re.findall(r"L\d", page.text) == ["L3", "L2", "L1", "L0"]
