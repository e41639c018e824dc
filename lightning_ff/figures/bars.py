"""Grouped bars that compare models class by class. Shapes: L layers, C classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from lightning_ff.figures import base
from lightning_ff.figures.arrays import Item, Values, array, class_names, flat, given
from lightning_ff.figures.base import (
    HATCHES,
    Axes,
    Figure,
    again,
    color,
    empty,
    left_label,
    legend,
    panels,
    settled,
    tidy,
)
from lightning_ff.figures.names import name_ticks

ByLayer: TypeAlias = Values | Mapping[str, Values]
_ByModel: TypeAlias = Mapping[str, ByLayer]
_Rows: TypeAlias = Sequence[np.ndarray | None]


def class_bars(
    values: Mapping[str, ByLayer],
    classes: Sequence[str],
    ylabel: str,
    deviation: Mapping[str, ByLayer] | None = None,
    layers: Sequence[str] | None = None,
) -> Figure:
    """One panel per layer: bars by class, one colour per model; NaN has no bar.

    Args:
        values: Name of the model or run to numbers `(L, C)`, or to layers' names and numbers `(C,)`; a model that lacks
            a layer has no bars there.
        classes: Names of the classes.
        ylabel: What the numbers are.
        deviation: Half the length of the error bars, in the form of `values`, for all models or some.
        layers: Names of the layers for numbers `(L, C)`; None is `layer 1` and so on.

    Raises:
        ValueError: shapes that do not fit, or a deviation of a model that has no values.
    """
    return settled(_by_class(values, class_names(classes), ylabel, deviation or {}, layers, 0.0))


def inhibition_bars(
    members: Mapping[str, Values],
    others: Mapping[str, Values],
    classes: Sequence[str],
    ylabel: str = "inhibition / excitation",
) -> Figure:
    """Inhibition over excitation of the members of each class's ensemble, next to that of all other units.

    Bars start at 1, where both are equal, on a logarithmic scale.

    Args:
        members: Name of the layer to ratios `(C,)`, as :func:`lightning_ff.metrics.inhibition_ratio` returns them;
            values that are not finite have no bar.
        others: Ratios of the units outside of the ensemble, in the same form.
        classes: Names of the classes.
        ylabel: What the numbers are.

    Raises:
        ValueError: shapes that do not fit.
    """
    figure = _by_class({"members": members, "other units": others}, class_names(classes), ylabel, {}, None, 1.0)
    every = np.concatenate([flat(ratios) for side in (members, others) for ratios in side.values()])
    every = np.append(every[every > 0], 1.0)
    for axis in figure.axes:
        axis.axhline(1.0, color=base.SOFT, linewidth=0.8)
        base.log_scale(axis, "y", every.min() / 1.5, every.max() * 1.5)
    return settled(figure)


def _by_class(
    values: _ByModel, names: list[str], ylabel: str, deviation: _ByModel, layers: Sequence[str] | None, start: float
) -> Figure:
    """:func:`class_bars`, with bars that start at `start`."""
    given("values", values, "numbers (L, C)")
    rows = {model: _by_layer(f"values[{model!r}]", each, names, layers) for model, each in values.items()}
    spread = known(deviation, values).items()
    errors = {model: _by_layer(f"deviation[{model!r}]", each, names, layers) for model, each in spread}
    found = list(dict.fromkeys(layer for numbers in rows.values() for layer in numbers))
    width = min(9.5, max(3.3, 0.6 + 0.06 * len(names) * (len(rows) + 1)))
    figure, axes = panels(len(found), width, 2.6, most=max(1, int(10.5 // width)), share_y=True, extra=0.3)
    for axis, layer in zip(axes, found, strict=True):
        tidy(axis, layer)
        heights = [numbers.get(layer) for numbers in rows.values()]
        grouped(axis, heights, [errors.get(model, {}).get(layer) for model in rows], len(names), start)
        name_ticks(axis, "x", np.arange(len(names)), names, width - 0.7)
    left_label(axes, ylabel)
    model_legend(figure, list(rows))
    return figure


def _by_layer(
    name: str, numbers: ByLayer, classes: Sequence[str], layers: Sequence[str] | None
) -> dict[str, np.ndarray]:
    """Numbers `(C,)` by layer."""
    if isinstance(numbers, Mapping):
        remedy = "give a number per class"
        return {k: array(f"{name}[{k!r}]", v, (len(classes),), remedy) for k, v in given(name, numbers, "(C,)").items()}
    count = None if layers is None else len(layers)
    matrix = array(name, numbers, (count, len(classes)), "give a row per layer and a column per class")
    return dict(zip(layers or [f"layer {k + 1}" for k in range(len(matrix))], matrix, strict=True))


def known(deviation: Mapping[str, Item] | None, values: Mapping[str, Any]) -> Mapping[str, Item]:
    """Check that every deviation is of a model with values."""
    strange = [model for model in deviation or {} if model not in values]
    if strange:
        raise ValueError(f"deviation[{strange[0]!r}] has no values: name one of {', '.join(map(repr, values))}")
    return deviation or {}


def grouped(axis: Axes, heights: _Rows, halves: _Rows, places: int, start: float = 0.0) -> None:
    """One group of bars at each position 0, 1, ...; models have the same order in each group."""
    width = 0.82 / len(heights)
    for i, (height, half) in enumerate(zip(heights, halves, strict=True)):
        if height is None:
            continue
        drawn = np.isfinite(height)
        x = np.arange(places) + (i - (len(heights) - 1) / 2) * width
        look: dict[str, Any] = {"color": color(i), "hatch": again(i, HATCHES), "edgecolor": "white", "linewidth": 0.3}
        axis.bar(x[drawn], height[drawn] - start, width, bottom=start, **look)
        if half is not None and (sure := drawn & np.isfinite(half)).any():
            axis.errorbar(x[sure], height[sure], half[sure], fmt="none", ecolor=base.INK, elinewidth=0.7, capsize=1.2)
    axis.set_xlim(-0.6, places - 0.4)
    every = np.concatenate([height for height in heights if height is not None])
    if not every[np.isfinite(every)].any():
        empty(axis, "all are 0" if np.isfinite(every).any() else "no values")


def model_legend(figure: Figure, models: Sequence[str]) -> None:
    """Legend of the models, if there are several."""
    from matplotlib.patches import Patch

    if len(models) > 1:
        count = range(len(models))
        legend(figure, [Patch(facecolor=color(i), hatch=again(i, HATCHES), edgecolor="white") for i in count], models)
