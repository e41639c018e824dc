"""Bars by class and model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer

from lightning_ff.figures import PALETTE, class_bars, inhibition_bars
from tests.figures.reading import bars, heights, legend, panels, ticks, words

CLASSES = ["shirt", "shoe", "bag"]
NAN = float("nan")
FF = torch.tensor([[0.8, 0.7, 0.9], [0.5, 0.4, 0.6]])
BP = torch.tensor([[0.3, 0.2, 0.1], [0.25, NAN, 0.15]])


def centres(axis: Any) -> list[list[float]]:
    return [[x for x, _, _ in series] for series in bars(axis)]


def test_each_model_has_its_bars_beside_the_other_ones() -> None:
    figure = class_bars({"FF": FF, "BP": BP}, CLASSES, "sparsity", layers=["block00", "block01"])
    assert [axis.get_title() for axis in panels(figure)] == ["block00", "block01"]
    first, second = panels(figure)
    assert heights(first) == [pytest.approx(FF[0].tolist()), pytest.approx(BP[0].tolist())]
    assert centres(first) == [pytest.approx([-0.205, 0.795, 1.795]), pytest.approx([0.205, 1.205, 2.205])]
    assert heights(second) == [pytest.approx(FF[1].tolist()), pytest.approx([0.25, 0.15])]  # NaN has none
    assert centres(second)[1] == pytest.approx([0.205, 2.205])
    assert ticks(first, "x") == {0.0: "shirt", 1.0: "shoe", 2.0: "bag"}
    assert (first.get_ylabel(), second.get_ylabel()) == ("sparsity", "")
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] == 0
    assert legend(figure) == ["FF", "BP"]
    colors = [to_hex(series.patches[0].get_facecolor()) for series in first.containers]
    assert colors == list(PALETTE[:2])
    handles = figure.legends[0].get_patches()
    assert [to_hex(handle.get_facecolor()) for handle in handles] == colors


def test_layers_by_name_may_differ_between_models() -> None:
    values = {"deep": {"a": FF[0], "b": FF[1]}, "other": {"b": BP[0], "c": [1.0, NAN, 2.0]}}
    figure = class_bars(values, CLASSES, "units")
    assert [axis.get_title() for axis in panels(figure)] == ["a", "b", "c"]
    assert [len(heights(axis)) for axis in panels(figure)] == [1, 2, 1]
    assert heights(panels(figure)[2]) == [[1.0, 2.0]]
    assert to_hex(panels(figure)[2].containers[0].patches[0].get_facecolor()) == PALETTE[1]  # as everywhere
    assert centres(panels(figure)[2])[0] == pytest.approx([0.205, 2.205])


def test_one_model_needs_no_legend_and_layers_have_numbers() -> None:
    figure = class_bars({"": FF.numpy()}, CLASSES, "sparsity")
    assert legend(figure) == []
    assert [axis.get_title() for axis in panels(figure)] == ["layer 1", "layer 2"]


def test_error_bars_are_as_long_as_the_deviation_on_both_sides() -> None:
    deviation = {"BP": [[0.1, 0.05, NAN], [0.2, 0.3, 0.4]]}
    figure = class_bars({"FF": FF, "BP": BP}, CLASSES, "sparsity", deviation=deviation)
    found = []
    for axis in panels(figure):
        (errors,) = (series for series in axis.containers if isinstance(series, ErrorbarContainer))
        segments = errors.lines[2][0].get_segments()
        found.append([[*segment[0].tolist(), segment[1][1]] for segment in segments])
    assert found[0] == [pytest.approx(row) for row in ([0.205, 0.2, 0.4], [1.205, 0.15, 0.25])]
    assert found[1] == [pytest.approx(row) for row in ([0.205, 0.05, 0.45], [2.205, -0.25, 0.55])]  # none without a bar


def test_nothing_and_zeros_are_said() -> None:
    values = torch.stack([FF[0], torch.full((3,), NAN), torch.zeros(3)])
    figure = class_bars({"FF": values, "BP": values}, CLASSES, "sparsity")
    assert [words(axis) for axis in panels(figure)] == [[], ["no values"], ["all are 0"]]


def test_more_than_eight_models_are_told_apart() -> None:
    values = {f"model {i}": torch.rand(1, 2) for i in range(10)}
    figure = class_bars(values, ["a", "b"], "units")
    looks = [
        (to_hex(series.patches[0].get_facecolor()), series.patches[0].get_hatch() or "")
        for series in panels(figure)[0].containers
        if isinstance(series, BarContainer)
    ]
    assert len(set(looks)) == 10
    handles = figure.legends[0].get_patches()
    assert [(to_hex(handle.get_facecolor()), handle.get_hatch() or "") for handle in handles] == looks


def test_a_hundred_classes_have_fewer_names() -> None:
    figure = class_bars({"FF": np.random.rand(2, 100)}, [f"class {c}" for c in range(100)], "units")
    for axis in panels(figure):
        assert len(heights(axis)[0]) == 100
        assert 20 <= len(ticks(axis, "x")) <= 70
    tops = [axis.get_position().y1 for axis in panels(figure)]
    assert tops[0] > tops[1]  # below each other


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"values": {}}, r"values=\{\}: give numbers \(L, C\) by name, at least one"),
    ({"values": {"FF": FF[:, :2]}}, r"values\['FF'\] of shape \(2, 2\): give a row per layer .*, \(any, 3\)"),
    ({"values": {"FF": {"a": FF}}}, r"values\['FF'\]\['a'\] of shape \(2, 3\): give a number per class, \(3,\)"),
    ({"values": {"FF": {}}}, r"values\['FF'\]=\{\}: give"),
    ({"layers": ["a"]}, r"values\['FF'\] of shape \(2, 3\): .*, \(1, 3\)"),
    ({"deviation": {"BP": FF}}, r"deviation\['BP'\] has no values: name one of 'FF'"),
    ({"deviation": {"FF": FF[0]}}, r"deviation\['FF'\] of shape \(3,\)"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=str)
def test_wrong_arguments(changed: dict[str, Any], message: str) -> None:
    arguments = {"values": {"FF": FF}, "classes": CLASSES, "ylabel": "units", **changed}
    with pytest.raises(ValueError, match=message):
        class_bars(**arguments)


def test_inhibition_goes_up_and_down_from_one() -> None:
    members = {"block01": torch.tensor([0.1, NAN, 1.0]), "block02": [float("inf"), 0.5, 0.0]}
    others = {"block01": torch.tensor([10.0, 4.0, 2.0]), "block02": [3.0, 2.0, 5.0]}
    figure = inhibition_bars(members, others, CLASSES)
    first, second = panels(figure)
    assert [(bottom, top) for _, bottom, top in bars(first)[0]] == [(1.0, pytest.approx(0.1)), (1.0, 1.0)]
    assert [(bottom, top) for _, bottom, top in bars(first)[1]] == [(1.0, 10.0), (1.0, 4.0), (1.0, 2.0)]
    assert heights(second) == [[0.5, 0.0], [3.0, 2.0, 5.0]]  # infinite has none
    assert first.get_yscale() == second.get_yscale() == "log"
    assert first.get_ylim() == second.get_ylim() == (pytest.approx(0.1 / 1.5), pytest.approx(15.0))
    assert legend(figure) == ["members", "other units"]
    assert first.get_ylabel() == "inhibition / excitation"
    assert {line.get_ydata()[0] for line in first.lines} == {1.0}


def test_inhibition_without_any_ratio() -> None:
    figure = inhibition_bars({"a": [NAN] * 3}, {"a": [float("inf")] * 3}, CLASSES)
    assert words(panels(figure)[0]) == ["no values"]
