"""Accuracy of linear probes of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from lightning_ff.figures.arrays import given
from lightning_ff.figures.bars import grouped, known, model_legend
from lightning_ff.figures.base import INK, SMALL, Axes, Figure, new_figure, settled, tidy
from lightning_ff.figures.names import name_ticks


def probe_bars(
    accuracies: Mapping[str, Mapping[str, float]],
    pixels: float | None = None,
    deviation: Mapping[str, Mapping[str, float]] | None = None,
    ylabel: str = "accuracy of the probe",
) -> Figure:
    """Accuracy of linear probes of each layer, one colour per model, with a line for raw pixels.

    Args:
        accuracies: Name of the model to layers' names and accuracies; NaN has no bar.
        pixels: Accuracy of a probe on the raw input; None draws no line.
        deviation: Half the length of the error bars, in the form of `accuracies`, for all models or some.
        ylabel: What the numbers are.

    Raises:
        ValueError: no accuracies, or a deviation of a model that has none.
    """
    given("accuracies", accuracies, "accuracies by layer")
    layers = list(dict.fromkeys(layer for numbers in accuracies.values() for layer in numbers))
    if not layers:
        raise ValueError(f"accuracies={accuracies!r}: give the accuracy of one layer at least")
    spread = known(deviation, accuracies)
    bars = len(layers) * (len(accuracies) + 1)
    width = min(10.5, max(4.0, 1.2 + 0.32 * bars))
    figure = new_figure(width, 3.0)
    axis = figure.subplots()
    tidy(axis, ylabel=ylabel)
    heights = [np.array([numbers.get(layer, np.nan) for layer in layers]) for numbers in accuracies.values()]
    halves = [np.array([spread.get(model, {}).get(layer, np.nan) for layer in layers]) for model in accuracies]
    grouped(axis, heights, halves, len(layers))
    name_ticks(axis, "x", np.arange(len(layers)), layers, width - 1.2)
    if pixels is not None and np.isfinite(pixels):
        axis.axhline(pixels, color=INK, linewidth=1.0, linestyle="--")
        place = axis.get_yaxis_transform()
        axis.text(1.01, pixels, f"raw pixels\n{pixels:.3f}", transform=place, va="center", fontsize=SMALL, color=INK)
    axis.set_ylim(0, max(1.0, axis.get_ylim()[1]))
    if width > 0.3 * bars:
        _write(axis)
    model_legend(figure, list(accuracies))
    return settled(figure)


def _write(axis: Axes) -> None:
    """Write each bar's number at its base, away from error bars and the line for pixels; above a low bar."""
    for bar in cast("list[Any]", axis.patches):
        height, inside = bar.get_height(), bar.get_height() > 0.1 * axis.get_ylim()[1]
        dark = float(np.dot(bar.get_facecolor()[:3], (0.3, 0.59, 0.11))) < 0.45
        x, y = bar.get_x() + bar.get_width() / 2, 0.015 if inside else height + 0.015
        ink = "white" if inside and dark else INK
        axis.text(x, y, f"{height:.3f}".removeprefix("0"), ha="center", fontsize=SMALL - 1, color=ink)
