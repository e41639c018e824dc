"""Bars of probes, and the line of raw pixels."""

from __future__ import annotations

import pytest
from matplotlib.container import ErrorbarContainer

from lightning_ff.figures import probe_bars
from tests.figures.reading import heights, legend, panels, ticks, words

ACCURACIES = {"FF": {"block00": 0.84, "block01": 0.8}, "BP": {"block01": 0.9, "block02": float("nan")}}


def test_models_and_layers() -> None:
    figure = probe_bars(ACCURACIES, pixels=0.843)
    (axis,) = panels(figure)
    assert heights(axis) == [[0.84, 0.8], [0.9]]
    assert ticks(axis, "x") == {0.0: "block00", 1.0: "block01", 2.0: "block02"}
    assert words(axis) == ["raw pixels\n0.843", ".840", ".800", ".900"]
    (line,) = axis.lines
    assert set(line.get_ydata()) == {0.843}
    assert axis.get_ylim() == (0.0, 1.0)
    assert axis.get_ylabel() == "accuracy of the probe"
    assert legend(figure) == ["FF", "BP"]


def test_deviations_and_no_pixels() -> None:
    (axis,) = panels(probe_bars(ACCURACIES, deviation={"FF": {"block01": 0.02}}))
    (errors,) = (series for series in axis.containers if isinstance(series, ErrorbarContainer))
    ((start, end),) = errors.lines[2][0].get_segments()
    assert (start[1], end[1]) == (pytest.approx(0.78), pytest.approx(0.82))
    assert words(axis) == [".840", ".800", ".900"]


def test_numbers_stand_at_the_foot_of_bars_that_are_high_enough() -> None:
    (axis,) = panels(probe_bars({"FF": {"a": 0.9, "b": 0.03}}))
    assert [text.get_position()[1] for text in axis.texts] == [0.015, pytest.approx(0.045)]
    assert [text.get_color() for text in axis.texts] == ["white", "#333333"]


def test_many_bars_have_no_numbers() -> None:
    many = {f"model {i}": {f"block{k:02d}": 0.5 for k in range(10)} for i in range(9)}
    (axis,) = panels(probe_bars(many))
    assert [len(series) for series in heights(axis)] == [10] * 9
    assert words(axis) == []


def test_without_any_value() -> None:
    (axis,) = panels(probe_bars({"FF": {"a": float("nan")}}, pixels=float("nan")))
    assert words(axis) == ["no values"]
    assert len(axis.lines) == 0


def test_layers_that_differ_in_the_middle_of_their_names_are_told_apart() -> None:
    names = [f"encoder.layers.{k}.attention.out_proj" for k in (0, 1, 10)]
    (axis,) = panels(probe_bars({"BP": dict.fromkeys(names, 0.5)}))
    shown = [ticks(axis, "x")[float(k)] for k in range(3)]
    assert [name[:17] for name in shown] == ["encoder.layers.0.", "encoder.layers.1.", "encoder.layers.10"]
    assert all(name.endswith("out_proj") for name in shown)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"accuracies=\{\}: give accuracies by layer by name, at least one"):
        probe_bars({})
    with pytest.raises(ValueError, match=r"accuracies=\{'FF': \{\}\}: give the accuracy of one layer at least"):
        probe_bars({"FF": {}})
    with pytest.raises(ValueError, match=r"deviation\['BP'\] has no values: name one of 'FF'"):
        probe_bars({"FF": {"a": 0.5}}, deviation={"BP": {"a": 0.1}})
