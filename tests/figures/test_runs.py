"""Accuracy against sparsity over runs."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lightning_ff.figures import PALETTE, RunPoint, accuracy_sparsity_scatter
from tests.figures.reading import legend, panels, words

NAN = float("nan")
POINTS = [
    RunPoint("FF", 0.83, {"block00": 0.8, "block01": 0.6}),
    RunPoint("BP", 0.89, {"block00": 0.3}),
    RunPoint("FF", 0.84, {"block00": 0.85, "block01": NAN}),
]


def points(axis: object) -> list[list[list[float]]]:
    found = [np.asarray(line.get_xydata()) for line in axis.lines]  # type: ignore[attr-defined]
    return [xy[np.isfinite(xy).all(1)].tolist() for xy in found]


def test_a_point_per_run_and_a_colour_per_model() -> None:
    figure = accuracy_sparsity_scatter(POINTS)
    first, second = panels(figure)
    assert [first.get_title(), second.get_title()] == ["block00", "block01"]
    assert points(first) == [[[0.8, 0.83], [0.85, 0.84]], [[0.3, 0.89]]]
    assert points(second) == [[[0.6, 0.83]], []]
    assert [to_hex(line.get_color()) for line in second.lines] == list(PALETTE[:2])
    assert len({line.get_marker() for line in first.lines}) == 2
    assert legend(figure) == ["FF", "BP"]
    assert (first.get_xlabel(), first.get_ylabel(), second.get_ylabel()) == ("Hoyer sparsity", "accuracy", "")
    assert first.get_xlim() == (-0.02, 1.02)
    assert first.get_ylim() == second.get_ylim()


def test_more_than_eight_models_and_a_dead_layer() -> None:
    many = [(f"model {i}", i / 20, {"a": i / 20, "b": NAN}) for i in range(20)]
    first, second = panels(accuracy_sparsity_scatter([RunPoint(*point) for point in many]))
    assert len({(line.get_color(), line.get_marker()) for line in first.lines}) == 20
    assert words(first) == []
    assert words(second) == ["no values"]


@pytest.mark.parametrize("given", [[], [RunPoint("FF", 0.8, {})]])
def test_without_any_run(given: list[RunPoint]) -> None:
    with pytest.raises(ValueError, match=r"points=\[.*: give the sparsity of one layer of one run at least"):
        accuracy_sparsity_scatter(given)
