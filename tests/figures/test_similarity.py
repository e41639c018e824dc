"""Dissimilarity matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from lightning_ff.figures import rdm_map, rdm_maps
from lightning_ff.metrics import class_mean_rdm, sample_rdm
from tests.figures.reading import color_bars, panels, shown, ticks, words

CLASSES = ["shirt", "shoe", "bag"]
LABEL = torch.tensor([2, 0, 2, 0, 0])


def mean(seed: int) -> torch.Tensor:
    return torch.rand(3, 20, generator=torch.Generator().manual_seed(seed))


def test_a_matrix_of_classes() -> None:
    rdm = class_mean_rdm(mean(0))
    figure = rdm_map(rdm, CLASSES, "block00")
    (axis,) = panels(figure)
    np.testing.assert_allclose(shown(axis), rdm)
    assert axis.images[0].get_clim() == (0.0, rdm.max().item())
    assert list(ticks(axis, "x").items()) == list(ticks(axis, "y").items()) == list(zip(range(3), CLASSES, strict=True))
    assert axis.get_title() == "block00"
    assert [bar.get_ylabel() for bar in color_bars(figure)] == ["dissimilarity"]


def test_several_matrices_have_one_scale() -> None:
    rdms = {"FF": class_mean_rdm(mean(0)), "BP": class_mean_rdm(mean(1)) * 1.5}
    figure = rdm_maps(rdms, CLASSES)
    assert [axis.get_title() for axis in panels(figure)] == ["FF", "BP"]
    for axis, rdm in zip(panels(figure), rdms.values(), strict=True):
        np.testing.assert_allclose(shown(axis), rdm)
        assert axis.images[0].get_clim() == (0.0, max(rdm.max().item() for rdm in rdms.values()))
    assert len(color_bars(figure)) == 1


def test_samples_are_sorted_by_class_with_lines_between() -> None:
    h = torch.rand(5, 9, generator=torch.Generator().manual_seed(0))
    rdm = sample_rdm(h)
    (axis,) = panels(rdm_map(rdm, CLASSES, label=LABEL))
    order = [1, 3, 4, 0, 2]
    np.testing.assert_allclose(shown(axis), rdm[order][:, order])
    assert len(axis.get_xticks()) == 0
    assert ticks(axis, "y") == {1.0: "shirt", 3.5: "bag"}
    assert sorted((line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines) == [(0, 2.5), (2.5, 0)]


def test_what_is_unknown_is_grey() -> None:
    rdms = {"partly": np.array([[0, 0.5], [np.nan, 0]]), "nothing": np.full((2, 2), np.nan)}
    partly, nothing = panels(rdm_maps(rdms, ["a", "b"]))
    assert shown(partly).tolist() == [[0.0, 0.5], [None, 0.0]]
    assert to_hex(partly.images[0].to_rgba(shown(partly))[1, 0]) == "#bdbdbd"
    assert words(nothing) == ["no values"]
    assert nothing.images[0].get_clim() == (0.0, 0.5)


def test_equal_classes_have_a_scale() -> None:
    (axis,) = panels(rdm_map(np.zeros((2, 2)), ["a", "b"]))
    assert axis.images[0].get_clim() == (0.0, 1.0)


def test_a_hundred_classes_have_fewer_names() -> None:
    (axis,) = panels(rdm_map(np.random.rand(100, 100), [f"class {c}" for c in range(100)]))
    assert 15 < len(ticks(axis, "x")) == len(ticks(axis, "y")) < 60


def test_wrong_arguments() -> None:
    rdm = np.zeros((3, 3))
    with pytest.raises(ValueError, match=r"rdm of shape \(3, 3\): give a row and a column per class, \(2, 2\)"):
        rdm_map(rdm, ["a", "b"])
    with pytest.raises(ValueError, match=r"rdm 'FF' of shape \(3, 3\): give a row and a column per sample, \(5, 5\)"):
        rdm_maps({"FF": rdm}, CLASSES, LABEL)
    with pytest.raises(ValueError, match="label has the value 3: must be a whole number from 0 to 2"):
        rdm_map(rdm, CLASSES, label=[1, 2, 3])
    with pytest.raises(ValueError, match=r"label of shape \(\): give the class of each sample"):
        rdm_map(rdm, CLASSES, label=torch.tensor(1))
    with pytest.raises(ValueError, match=r"rdms=\{\}: give dissimilarities \(C, C\) by name, at least one"):
        rdm_maps({}, CLASSES)
