"""Mean activity of units, members of ensembles marked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from lightning_ff.figures import PALETTE, class_profile, class_profiles
from tests.figures.reading import overlapping, panels, pixels, words

MEAN = torch.tensor([[0.0, 2.0, 0.5, 0.0], [1.0, 0.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
MEMBERS = torch.tensor([[False, True, False, False], [True, False, False, True], [False, False, False, False]])
CLASSES = ["shirt", "shoe", "bag"]


def stems(axis: Axes) -> dict[float, float]:
    """Top of the line at each unit; all start at 0."""
    (lines,) = (found for found in axis.collections if isinstance(found, LineCollection))
    ends = [segment for segment in lines.get_segments() if len(segment)]
    assert all(segment[0, 1] == 0 for segment in ends)
    return {float(segment[1, 0]): float(segment[1, 1]) for segment in ends}


def marks(axis: Axes) -> list[list[float]]:
    (line,) = axis.lines
    assert line.get_color() == PALETTE[3]
    return np.asarray(line.get_xydata()).tolist()


def test_a_profile_marks_the_members_at_their_means() -> None:
    (axis,) = panels(class_profile(MEAN[0], MEMBERS[0], "shirt"))
    assert stems(axis) == {0.0: 0.0, 1.0: 2.0, 2.0: 0.5, 3.0: 0.0}
    assert marks(axis) == [[1.0, 2.0]]
    assert axis.get_title() == "shirt: 1 unit"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("unit", "mean activity")
    assert axis.get_ylim() == (0.0, 2.1)


def test_profiles_of_all_classes_have_one_scale() -> None:
    figure = class_profiles(MEAN, MEMBERS, CLASSES, "block00")
    assert [axis.get_title() for axis in panels(figure)] == ["shirt: 1 unit", "shoe: 2 units", "bag: 0 units"]
    for axis, mean, members in zip(panels(figure), MEAN, MEMBERS, strict=True):
        assert stems(axis) == dict(enumerate(mean.tolist()))
        assert marks(axis) == [[i, mean[i].item()] for i in members.nonzero().flatten().tolist()]
        assert axis.get_ylim() == (0.0, pytest.approx(4.2))
    assert [words(axis) for axis in panels(figure)] == [[], [], ["no unit is active"]]
    assert [text.get_text() for text in figure.texts if text.get_text() == "block00"] == ["block00"]


def test_classes_without_samples_and_gaps() -> None:
    mean = MEAN.clone()
    mean[0] = torch.nan
    mean[1, 3] = torch.nan
    first, second, _ = panels(class_profiles(mean, MEMBERS, CLASSES))
    assert words(first) == ["no samples"]
    assert stems(first) == {}
    assert stems(second) == {0.0: 1.0, 1.0: 0.0, 2.0: 0.0}


def test_negative_means_are_seen() -> None:
    (axis,) = panels(class_profile(-MEAN[0], MEMBERS[0]))
    assert axis.get_ylim() == (-2.1, 0.0)
    assert axis.get_title() == "1 unit"


@pytest.mark.parametrize("classes", [2, 10, 30])
def test_titles_do_not_meet_and_outer_panels_have_the_scale(classes: int) -> None:
    names = [f"a class with a very long name {c}" for c in range(classes)]
    figure = class_profiles(torch.rand(classes, 40), torch.rand(classes, 40) > 0.5, names)
    pixels(figure)
    axes = panels(figure)
    assert len(axes) == classes
    assert overlapping([axis.title for axis in axes]) == []
    assert all(axis.get_title().startswith("a class ") for axis in axes)
    columns = len({round(axis.get_position().x0, 3) for axis in axes})
    assert [len(axis.get_yticks()) > 0 for axis in axes] == [k % columns == 0 for k in range(classes)]
    assert [len(axis.get_xticks()) > 0 for axis in axes] == [k + columns >= classes for k in range(classes)]


@pytest.mark.parametrize(
    ("mean", "members", "message"),
    [
        (MEAN[0], MEMBERS[0], r"mean of shape \(4,\): give a row per class and a column per unit, \(3, any\)"),
        (MEAN[:2], MEMBERS, r"mean of shape \(2, 4\)"),
        (MEAN, MEMBERS[:, :3], r"members of shape \(3, 3\): give .*, \(3, 4\)"),
    ],
)
def test_wrong_shapes(mean: torch.Tensor, members: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_profiles(mean, members, CLASSES)


def test_wrong_shapes_of_one_class() -> None:
    with pytest.raises(ValueError, match=r"members of shape \(3,\): give one bool per unit, \(4,\)"):
        class_profile(MEAN[0], MEMBERS[0, :3])
    with pytest.raises(ValueError, match=r"mean='no' is no array of numbers"):
        class_profile("no", MEMBERS[0])
