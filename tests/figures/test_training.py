"""Ensembles' growth over training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from lightning_ff.figures import growth
from lightning_ff.figures.training import apart
from tests.figures.reading import overlapping, panels, pixels, words

CLASSES = ["shirt", "shoe", "bag"]
SIZES = torch.tensor([[90, 80, 70], [50, 60, 40], [30, 55, 20]])
NAN = float("nan")


def labels(axis: Axes) -> dict[str, tuple[float, float]]:
    """End of the line of each name."""
    return {text.get_text(): text.xy for text in axis.texts}  # type: ignore[attr-defined]


def test_a_line_per_class_with_its_name_at_its_end() -> None:
    figure = growth({"block00": SIZES, "block01": SIZES * 2}, CLASSES, [4, 9, 14])
    assert [axis.get_title() for axis in panels(figure)] == ["block00", "block01"]
    for axis, sizes in zip(panels(figure), (SIZES, SIZES * 2), strict=True):
        for line, column in zip(axis.lines, sizes.T, strict=True):
            assert line.get_xdata().tolist() == [4, 9, 14]
            assert line.get_ydata().tolist() == column.tolist()
        assert labels(axis) == {name: (14.0, float(size)) for name, size in zip(CLASSES, sizes[-1], strict=True)}
        assert [text.get_color() for text in axis.texts] == [line.get_color() for line in axis.lines]
        assert axis.get_xlim() == (4, 14)
        assert axis.get_ylim()[0] == 0
        assert axis.get_xlabel() == "epoch"
    assert [axis.get_ylabel() for axis in panels(figure)] == ["units in the ensemble", ""]


@pytest.mark.parametrize("classes", [10, 20])
def test_names_do_not_meet_and_lines_are_told_apart(classes: int) -> None:
    sizes = 50 + np.random.default_rng(0).random((5, classes))
    sizes[-1, : classes // 2] = 50  # many end in one place
    sizes[-1, -1] = 0
    figure = growth({"block00": sizes}, [f"class {c}" for c in range(classes)], range(5))
    pixels(figure)
    (axis,) = panels(figure)
    assert len(axis.texts) == classes
    assert overlapping(list(axis.texts)) == []
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.lines}) == classes
    ends = {text.get_text(): text.get_position()[1] for text in axis.texts}
    assert max(ends, key=lambda name: ends[name]) == f"class {int(sizes[-1].argmax())}"


def test_a_hundred_classes_are_grey_about_their_mean() -> None:
    sizes = np.random.default_rng(0).random((4, 100)) * 100
    sizes[1, 3] = NAN
    (axis,) = panels(growth({"block00": sizes}, [f"class {c}" for c in range(100)], range(4)))
    assert len(axis.lines) == 103
    assert len({line.get_color() for line in axis.lines[:100]}) == 1
    np.testing.assert_array_equal(axis.lines[3].get_ydata(), sizes[:, 3])
    np.testing.assert_allclose(axis.lines[100].get_ydata(), np.nanmean(sizes, 1))
    assert words(axis) == ["mean", f"class {sizes[-1].argmax()}", f"class {sizes[-1].argmin()}"]


def test_gaps_and_classes_without_values() -> None:
    sizes = torch.tensor([[5.0, NAN, 1.0], [NAN, NAN, 2.0], [7.0, NAN, NAN]])
    figure = growth({"block00": sizes, "nothing": sizes * NAN, "zero": sizes * 0}, CLASSES, [0, 1, 2])
    first, nothing, zero = panels(figure)
    assert labels(first) == {"shirt": (2.0, 7.0), "bag": (1.0, 2.0)}
    np.testing.assert_array_equal(first.lines[0].get_ydata(), [5.0, NAN, 7.0])
    assert words(nothing) == ["no values"]
    assert zero.get_ylim() == (0.0, 1.0)


def test_a_single_epoch_is_a_point() -> None:
    (axis,) = panels(growth({"block00": SIZES[:1]}, CLASSES, [5]))
    assert axis.get_xticks().tolist() == [5]
    assert {line.get_marker() for line in axis.lines} == {"o"}


def test_places_are_moved_apart_as_little_as_can_be() -> None:
    assert apart(np.array([0.1, 0.5, 0.9]), 0.2).tolist() == pytest.approx([0.1, 0.5, 0.9])
    assert apart(np.array([0.5, 0.5, 0.5]), 0.1).tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert apart(np.array([0.0, 0.0, 1.0, 1.0]), 0.1).tolist() == pytest.approx([0.0, 0.1, 0.9, 1.0])
    assert apart(np.full(5, 0.3), 0.5).tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])  # as far as there is room
    assert apart(np.array([0.7]), 0.5).tolist() == [0.7]
    assert apart(np.array([]), 0.5).tolist() == []
    wanted = np.random.default_rng(0).random(12)
    places = apart(wanted, 0.05)
    assert np.argsort(places).tolist() == np.argsort(wanted).tolist()
    assert np.diff(np.sort(places)).min() >= 0.05 - 1e-12


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sizes": {}}, r"sizes=\{\}: give sizes \(E, C\) by name, at least one"),
        ({"sizes": {"a": SIZES.T[:2]}}, r"sizes\['a'\] of shape \(2, 3\): give a row per epoch .*, \(3, 3\)"),
        ({"epochs": [[1, 2, 3]]}, r"epochs of shape \(1, 3\): give the epoch of each measurement"),
        ({"epochs": []}, r"epochs of shape \(0,\)"),
    ],
)
def test_wrong_arguments(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        growth(**{"sizes": {"a": SIZES}, "classes": CLASSES, "epochs": [1, 2, 3], **changed})
