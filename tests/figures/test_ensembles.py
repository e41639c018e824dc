"""Maps of ensembles: shared units, connections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from lightning_ff.figures import connectivity_map, sharing_map
from lightning_ff.metrics import shared_units
from tests.figures.reading import color_bars, inside, panels, pixels, shown, ticks, words

CLASSES = ["shirt", "shoe", "bag"]
MEMBERS = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 0, 0]], dtype=torch.bool)
NAN = float("nan")


def test_shared_units_are_written_into_cells_and_sizes_beside_names() -> None:
    figure = sharing_map(shared_units(MEMBERS), CLASSES, "block00")
    (axis,) = panels(figure)
    assert shown(axis).tolist() == [[None, 2, 1], [2, None, 1], [1, 1, None]]
    assert axis.images[0].get_clim() == (0.0, 2.0)
    assert ticks(axis, "x") == {0.0: "shirt", 1.0: "shoe", 2.0: "bag"}
    assert ticks(axis, "y") == {0.0: "shirt (3)", 1.0: "shoe (2)", 2.0: "bag (1)"}
    written = {text.get_position()[::-1]: text.get_text() for text in axis.texts}
    assert written == {(0, 1): "2", (0, 2): "1", (1, 0): "2", (1, 2): "1", (2, 0): "1", (2, 1): "1"}
    assert {text.get_color() for text in axis.texts if text.get_text() == "2"} == {"white"}
    assert axis.get_xlabel() == "3 of 3 pairs share units"
    assert axis.get_title() == "block00"
    assert color_bars(figure) == []


def test_cells_without_shared_units_are_blank() -> None:
    figure = sharing_map([[3, 0], [0, 0]], ["cat", "dog"])
    (axis,) = panels(figure)
    assert shown(axis).mask.all()
    assert words(axis) == []
    assert list(ticks(axis, "y").values()) == ["cat (3)", "dog (0)"]
    assert axis.get_xlabel() == "0 of 1 pairs share units"
    picture = inside(axis, pixels(figure))
    rows, columns = picture.shape[0] // 4, picture.shape[1] // 4
    assert (picture[rows, 3 * columns] == 255).all()  # a blank cell
    assert (picture[rows, columns] < 255).all()  # the diagonal


def test_means_over_runs_have_a_decimal_and_unknown_sizes_none() -> None:
    (axis,) = panels(sharing_map([[NAN, 2.25, 0], [2.25, 10.5, 4.0], [0, 4.0, 7]], CLASSES))
    assert sorted(set(words(axis))) == ["2.2", "4"]
    assert list(ticks(axis, "y").values()) == ["shirt (-)", "shoe (10.5)", "bag (7)"]


def test_many_classes_have_a_colour_bar_instead_of_numbers() -> None:
    counts = np.random.default_rng(0).poisson(1.0, (50, 50))
    figure = sharing_map(counts, [f"class {c}" for c in range(50)])
    (axis,) = panels(figure)
    assert words(axis) == []
    assert [bar.get_ylabel() for bar in color_bars(figure)] == ["shared units"]
    off = counts * (1 - np.eye(50, dtype=int))
    np.testing.assert_array_equal(shown(axis).filled(0), off)


def test_long_names_keep_their_sizes() -> None:
    (axis,) = panels(sharing_map(shared_units(MEMBERS), [f"a class with a very long name {c}" for c in range(3)]))
    assert list(ticks(axis, "y").values()) == [f"a class w…name {c} ({3 - c})" for c in range(3)]


def test_connections_have_white_at_zero() -> None:
    weights = torch.tensor([[0.5, -0.25, NAN], [-2.0, 0.0, NAN], [NAN, NAN, NAN]])
    figure = connectivity_map(weights, CLASSES, "block00 to block01")
    (axis,) = panels(figure)
    image = axis.images[0]
    assert shown(axis).tolist() == [[0.5, -0.25, None], [-2.0, 0.0, None], [None, None, None]]
    assert image.get_clim() == (-2.0, 2.0)
    colors = image.to_rgba(shown(axis))
    assert min(colors[1, 1][:3]) > 0.96
    assert colors[0, 0][0] > colors[0, 0][2]  # excites: red
    assert colors[1, 0][2] > colors[1, 0][0]  # inhibits: blue
    assert to_hex(colors[2, 0]) == "#bdbdbd"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("from the ensemble of", "to the ensemble of")
    assert list(ticks(axis, "y").values()) == list(ticks(axis, "x").values()) == CLASSES
    assert [bar.get_ylabel() for bar in color_bars(figure)] == ["mean weight"]


@pytest.mark.parametrize(("fill", "text"), [(NAN, ["no ensemble has units"]), (0.0, [])])
def test_connections_without_any_ensemble_or_weight(fill: float, text: list[str]) -> None:
    (axis,) = panels(connectivity_map(np.full((3, 3), fill), CLASSES))
    assert words(axis) == text
    assert axis.images[0].get_clim() == (-1.0, 1.0)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"counts of shape \(3, 3\): give a row and a column per class, \(2, 2\)"):
        sharing_map(shared_units(MEMBERS), ["a", "b"])
    with pytest.raises(ValueError, match=r"weights of shape \(3,\): give a row and a column per class, \(3, 3\)"):
        connectivity_map([1.0, 2.0, 3.0], CLASSES)
