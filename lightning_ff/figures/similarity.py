"""How alike classes are: shared units, dissimilarity, and connections between ensembles, as maps of classes by classes.

Shapes: C classes, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_ff.figures.activations import class_rows
from lightning_ff.figures.arrays import Values, array, class_labels, class_names, given
from lightning_ff.figures.base import (
    FAINT,
    INK,
    SMALL,
    SOFT,
    color_bar,
    color_map,
    empty,
    name_ticks,
    new_figure,
    panels,
    settled,
    short,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MISSING = "#bdbdbd"
_WRITTEN = 20  # classes up to which numbers are written into cells


def sharing_map(counts: Values, classes: Sequence[str], title: str = "") -> Figure:
    """How many units two classes' ensembles share; cells without any are blank, sizes stand beside the names.

    Args:
        counts: Shared units `(C, C)`, sizes on the diagonal, as :func:`lightning_ff.metrics.shared_units` gives them;
            means over runs are written with one decimal.
        classes: Names of the classes.
        title: Above the picture.

    Raises:
        ValueError: shapes that do not fit.
    """
    names = class_names(classes)
    numbers = array("counts", counts, (len(names),) * 2, "give a row and a column per class")
    off = ~np.eye(len(names), dtype=bool)
    shown = np.ma.masked_array(numbers, ~(off & (numbers > 0)))
    high = float(shown.max()) if shown.count() else 1.0
    figure, axis = _square(len(names), title)
    image = axis.imshow(shown, cmap=color_map("Blues", bad="white"), vmin=0.0, vmax=high, interpolation="nearest")
    sizes = [f"{short(name)} ({_number(size)})" for name, size in zip(names, numbers.diagonal(), strict=True)]
    _class_ticks(axis, names, sizes, figure.get_figheight() - 1.3)
    pairs = int((np.triu(numbers, 1) > 0).sum())
    axis.set_xlabel(f"{pairs} of {len(names) * (len(names) - 1) // 2} pairs share units", fontsize=SMALL, color=INK)
    for c in range(len(names)):
        axis.fill_between([c - 0.5, c + 0.5], c - 0.5, c + 0.5, color=FAINT, linewidth=0)
    if len(names) > _WRITTEN:
        color_bar(figure, image, axis, "shared units")
        return settled(figure)
    _lines(axis, len(names))
    for row, column in np.argwhere(~shown.mask) if shown.count() else ():
        value = numbers[row, column]
        axis.text(column, row, _number(value), ha="center", va="center", fontsize=SMALL - len(names) // 16)
        axis.texts[-1].set_color("white" if value > 0.6 * high else INK)
    return settled(figure)


def _number(value: float) -> str:
    """A count, or a mean of counts.

    Example::

        >>> _number(5.0), _number(4.25), _number(float("nan"))
        ('5', '4.2', '-')
    """
    if not np.isfinite(value):
        return "-"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"


def rdm_map(rdm: Values, classes: Sequence[str], title: str = "", label: Values | None = None) -> Figure:
    """A representational dissimilarity matrix, of classes or of samples.

    Args:
        rdm: Dissimilarities of classes `(C, C)`, or, with labels, of samples `(S, S)`; what is NaN is grey.
        classes: Names of the classes.
        title: Above the picture.
        label: Class of each sample `(S,)`: samples are sorted by class, and lines drawn between classes.

    Raises:
        ValueError: shapes or labels that do not fit.
    """
    return rdm_maps({title: rdm}, classes, label)


def rdm_maps(rdms: Mapping[str, Values], classes: Sequence[str], label: Values | None = None) -> Figure:
    """Several dissimilarity matrices of the same classes or samples beside each other, in the same colours.

    Args:
        rdms: Name, of a layer or a model, to dissimilarities as :func:`rdm_map` takes them.
        classes: Names of the classes.
        label: As for :func:`rdm_map`.

    Raises:
        ValueError: shapes or labels that do not fit.
    """
    names = class_names(classes)
    given("rdms", rdms, "dissimilarities (C, C)")
    whose = "class" if label is None else "sample"
    size = len(names) if label is None else len(np.atleast_1d(label))
    values = {
        name: array(f"rdm {name!r}" if name else "rdm", rdm, (size, size), f"give a row and a column per {whose}")
        for name, rdm in rdms.items()
    }
    of = np.arange(size) if label is None else class_labels(label, size, len(names))
    order = np.argsort(of, kind="stable")
    finite = np.concatenate([rdm[np.isfinite(rdm)] for rdm in values.values()])
    low, high = min(0.0, finite.min(initial=0.0)), finite.max(initial=0.0)
    colors = color_map("YlGnBu_r", bad=_MISSING)
    side = max(3.0, 0.17 * min(len(names), 40 if len(values) == 1 else 24))
    figure, axes = panels(len(values), side, side if label is None else side - 0.6)
    figure.set_layout_engine("compressed")  # the colour bar is as high as the maps
    for axis, (name, rdm) in zip(axes, values.items(), strict=True):
        shown = np.ma.masked_invalid(rdm[np.ix_(order, order)])
        scaling = "nearest" if label is None else "antialiased"
        image = axis.imshow(shown, colors, vmin=low, vmax=high if high > low else 1.0, interpolation=scaling)
        tidy(axis, name, frame=True)
        if label is None:
            _class_ticks(axis, names, [short(name) for name in names], side - 1.1)
        else:
            class_rows(axis, of[order], names, side - 0.8)
            axis.set_xticks([])
            for start in np.flatnonzero(np.diff(of[order])):
                axis.axvline(start + 0.5, color=SOFT, linewidth=0.4)
        if not shown.count():
            empty(axis, "no values")
    color_bar(figure, image, axes, "dissimilarity")
    return settled(figure)


def connectivity_map(weights: Values, classes: Sequence[str], title: str = "") -> Figure:
    """Mean weight between classes' ensembles of two layers: red excites, blue inhibits, white is 0.

    Args:
        weights: Mean weights `(C, C)`, to the ensemble of the row in the later layer, from that of the column in the
            earlier one; NaN, where an ensemble is empty, is grey.
        classes: Names of the classes.
        title: Above the picture.

    Raises:
        ValueError: shapes that do not fit.
    """
    names = class_names(classes)
    values = array("weights", weights, (len(names),) * 2, "give a row and a column per class")
    finite = np.abs(values[np.isfinite(values)])
    high = float(finite.max(initial=0.0)) or 1.0
    figure, axis = _square(len(names), title)
    shown = np.ma.masked_invalid(values)
    image = axis.imshow(shown, cmap=color_map("RdBu_r", bad=_MISSING), vmin=-high, vmax=high, interpolation="nearest")
    _class_ticks(axis, names, [short(name) for name in names], figure.get_figheight() - 1.3)
    axis.set_xlabel("from the ensemble of", fontsize=SMALL, color=INK)
    axis.set_ylabel("to the ensemble of", fontsize=SMALL, color=INK)
    if not shown.count():
        empty(axis, "no ensemble has units")
    color_bar(figure, image, axis, "mean weight")
    return settled(figure)


def _square(classes: int, title: str) -> tuple[Figure, Axes]:
    """A figure whose cells have room for a number."""
    side = 1.6 + 0.3 * min(max(classes, 8), 24)
    figure = new_figure(side + 0.6, side)
    figure.set_layout_engine("compressed")  # the other one finds room for names only when it draws a second time
    axis = figure.subplots()
    tidy(axis, title, frame=True)
    return figure, axis


def _class_ticks(axis: Axes, columns: Sequence[str], rows: Sequence[str], room: float) -> None:
    """Names on both sides, of so many inches each."""
    name_ticks(axis, "x", np.arange(len(columns)), columns, room)
    name_ticks(axis, "y", np.arange(len(rows)), rows, room, most=26)
    axis.tick_params("both", length=0)


def _lines(axis: Axes, classes: int) -> None:
    """Thin lines between cells, so that blank ones are cells too."""
    for place in np.arange(1, classes) - 0.5:
        axis.axhline(place, color=FAINT, linewidth=0.5)
        axis.axvline(place, color=FAINT, linewidth=0.5)
