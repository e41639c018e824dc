"""Accuracy against sparsity of many runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lightning_ff.figures.base import MARKERS, PALETTE, Figure, color, empty, left_label, legend, panels, settled, tidy


class RunPoint(NamedTuple):
    """One run in :func:`accuracy_sparsity_scatter`."""

    model: str  # runs of one name have one colour
    accuracy: float
    sparsity: Mapping[str, float]  # name of the layer to its sparsity


def accuracy_sparsity_scatter(points: Sequence[RunPoint], xlabel: str = "Hoyer sparsity") -> Figure:
    """One panel per layer: a point per run, a colour and a marker per model.

    Args:
        points: The runs; NaN and missing layers have no point.
        xlabel: What the sparsities are.

    Raises:
        ValueError: no runs, or none with a layer.
    """
    runs = [RunPoint(*point) for point in points]
    layers = list(dict.fromkeys(layer for run in runs for layer in run.sparsity))
    if not layers:
        raise ValueError(f"points={points!r}: give the sparsity of one layer of one run at least")
    models = list(dict.fromkeys(run.model for run in runs))
    figure, axes = panels(len(layers), 2.9, 2.6, share_y=True, extra=0.3)
    for axis, layer in zip(axes, layers, strict=True):
        tidy(axis, layer, xlabel)
        axis.set_xlim(-0.02, 1.02)
        for i, model in enumerate(models):
            chosen = [(run.sparsity.get(layer, np.nan), run.accuracy) for run in runs if run.model == model]
            marker = MARKERS[(i + i // len(PALETTE)) % len(MARKERS)]
            look: dict[str, Any] = {"linestyle": "", "marker": marker, "markersize": 5.5, "alpha": 0.85}
            look.update(color=color(i), markeredgecolor="white", markeredgewidth=0.5)
            axis.plot(*np.array(chosen, float).T, **look)
        if not any(np.isfinite(line.get_xydata()).all(1).any() for line in axis.lines):
            empty(axis, "no values")
    left_label(axes, "accuracy")
    legend(figure, axes[0].lines, models)
    return settled(figure)
