"""The wall of activations: rows by class, columns by unit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ff.figures import activation_wall
from lightning_ff.figures.activations import unit_order
from tests.figures.reading import color_bars, inside, panels, pixels, shown, ticks, words

LABEL = torch.tensor([2, 0, 2, 0, 0, 1])
CLASSES = ["shirt", "shoe", "bag"]


def layer(units: int = 7) -> Tensor:
    return torch.rand(6, units, generator=torch.Generator().manual_seed(units)).sub(0.5).relu()


def test_rows_are_samples_by_class_in_their_order() -> None:
    h = {"block00": layer(7), "block01": layer(5)}
    figure = activation_wall(h, LABEL, CLASSES)
    assert [axis.get_title() for axis in panels(figure)] == ["block00", "block01"]
    for axis, values in zip(panels(figure), h.values(), strict=True):
        np.testing.assert_allclose(shown(axis), values[[1, 3, 4, 5, 0, 2]], rtol=1e-7)
        assert axis.images[0].get_cmap().name == "Blues"
        assert axis.get_xlabel() == "units"
        assert ticks(axis, "y") == {1.0: "shirt", 3.0: "shoe", 4.5: "bag"}
        assert sorted(line.get_ydata()[0] for line in axis.lines) == [2.5, 3.5]  # between classes
    assert [bar.get_ylabel() for bar in color_bars(figure)] == ["activation"] * 2


@pytest.mark.parametrize("percentile", [50.0, 99.5, 100.0])
def test_the_darkest_colour_is_a_percentile_of_what_is_positive(percentile: float) -> None:
    h = layer()
    h[0, 0] = 1000.0
    (axis,) = panels(activation_wall({"block00": h}, LABEL, CLASSES, percentile=percentile))
    positive = h.double()[h > 0].numpy()
    assert axis.images[0].get_clim() == (0.0, pytest.approx(np.percentile(positive, percentile)))


def test_units_are_sorted_by_the_class_of_their_ensemble() -> None:
    h = torch.zeros(6, 6)
    h[[1, 3, 4], 4] = 2.0  # shirt
    h[[1, 3, 4], 2] = 3.0  # shirt, more active, and bag
    h[[0, 2], 2] = 1.0
    h[5, 0] = 1.0  # shoe
    h[[0, 2], 5] = 1.0  # bag
    h[5, 3] = 0.5  # in none
    members = torch.zeros(3, 6, dtype=torch.bool)
    members[0, [2, 4]] = members[1, 0] = True
    members[2, [2, 5]] = True
    figure = activation_wall({"block00": h, "block01": h}, LABEL, CLASSES, members={"block00": members})
    first, second = panels(figure)
    rows = h[[1, 3, 4, 5, 0, 2]]
    np.testing.assert_array_equal(shown(first), rows[:, [2, 4, 0, 5, 3, 1]])
    np.testing.assert_array_equal(shown(second), rows)
    assert first.get_xlabel() == "4 units by ensemble, 2 in none"
    assert 3.5 in [line.get_xdata()[0] for line in first.lines]  # after the last of an ensemble
    assert second.get_xlabel() == "units"


def test_unit_order_of_empty_and_full_ensembles() -> None:
    means = np.array([[1.0, 3.0, 2.0], [0.0, 4.0, 5.0]])
    assert unit_order(np.zeros((2, 3), bool), means).tolist() == [2, 1, 0]
    assert unit_order(np.ones((2, 3), bool), means).tolist() == [0, 2, 1]


def test_what_is_dead_or_missing_is_said() -> None:
    h = {"alive": layer(), "dead": torch.zeros(6, 7), "broken": torch.full((6, 7), torch.nan), "partly": layer()}
    h["partly"][1, 2] = torch.nan
    figure = activation_wall(h, LABEL, CLASSES)
    assert [words(axis) for axis in panels(figure)] == [[], ["no unit is active"], ["no values"], []]
    assert shown(panels(figure)[2]).mask.all()
    assert np.argwhere(shown(panels(figure)[3]).mask).tolist() == [[0, 2]]
    picture = pixels(figure)
    for axis in panels(figure):
        assert (inside(axis, picture) < 200).any()


def test_a_class_without_samples_has_no_rows() -> None:
    (axis,) = panels(activation_wall({"block00": layer()}, LABEL, ["a", "b", "c", "d"]))
    assert list(ticks(axis, "y").values()) == ["a", "b", "c"]
    (axis,) = panels(activation_wall({"block00": layer()}, LABEL * 0 + 1, CLASSES))
    assert ticks(axis, "y") == {2.5: "shoe"}


def test_names_of_many_classes_are_thinned_out_until_they_fit() -> None:
    classes = [f"class {c}" for c in range(100)]
    h = torch.rand(200, 30)
    figure = activation_wall({"block00": h}, torch.arange(200) % 100, classes)
    (axis,) = panels(figure)
    names = list(ticks(axis, "y").values())
    assert names == classes[:: 100 // len(names) + (100 % len(names) > 0)]
    assert 10 < len(names) < 30
    assert len(axis.lines) == 0


def test_a_wide_layer_has_a_row_of_its_own() -> None:
    narrow, wide = {f"b{k}": torch.rand(6, 50) for k in range(10)}, {f"b{k}": torch.rand(6, 1000) for k in range(3)}
    for h, columns in ((narrow, 3), (wide, 1)):
        figure = activation_wall(h, LABEL, CLASSES)
        lefts = [round(axis.get_position().x0, 2) for axis in panels(figure)]
        assert len(lefts) == len(h)
        assert len(set(lefts[:columns])) == columns
        assert lefts[columns] == lefts[0]
    assert panels(figure)[0].get_window_extent().width >= 800  # of the figure's 100 dots per inch


WRONG = [
    ({"activations": {}}, r"activations=\{\}: give activations \(S, U\) by name"),
    ({"activations": {"a": torch.ones(6)}}, r"activations\['a'\] of shape \(6,\): give a row per sample"),
    ({"activations": {"a": torch.ones(0, 3)}}, r"activations\['a'\] of shape \(0, 3\)"),
    ({"label": LABEL[:5]}, r"label of shape \(5,\): give the class of each sample, \(6,\)"),
    ({"label": LABEL + 1}, "label has the value 3: must be a whole number from 0 to 2"),
    ({"label": LABEL - 0.5}, "label has the value 1.5: must be a whole number"),
    ({"classes": "shirt"}, "classes='shirt': give the name of each class"),
    ({"classes": []}, r"classes=\[\]: give the name of each class"),
    ({"members": {"a": torch.ones(2, 7)}}, r"members\['a'\] of shape \(2, 7\): give .*, \(3, 7\)"),
    ({"percentile": 0}, r"percentile=0: must lie in \(0, 100\]"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=str)
def test_wrong_arguments(changed: dict[str, object], message: str) -> None:
    arguments = {"activations": {"a": layer()}, "label": LABEL, "classes": CLASSES, **changed}
    with pytest.raises(ValueError, match=message):
        activation_wall(**arguments)  # type: ignore[arg-type]
