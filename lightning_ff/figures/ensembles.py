"""Maps of C classes by C classes: shared units of ensembles, and connections between those of two layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_ff.figures import base
from lightning_ff.figures.arrays import Values, array, class_names
from lightning_ff.figures.base import INK, SMALL, Axes, Figure, color_bar, color_map, empty, settled, short, tidy
from lightning_ff.figures.names import class_ticks

_WRITTEN = 20  # classes up to which numbers are written into cells


def sharing_map(counts: Values, classes: Sequence[str], title: str = "") -> Figure:
    """Number of units that two classes' ensembles share; cells with 0 are blank, sizes are next to the names.

    Args:
        counts: Shared units `(C, C)`, sizes on the diagonal, as :func:`lightning_ff.metrics.shared_units` returns them;
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
    class_ticks(axis, names, figure.get_figheight() - 1.3, rows=sizes)
    pairs = int((np.triu(numbers, 1) > 0).sum())
    axis.set_xlabel(f"{pairs} of {len(names) * (len(names) - 1) // 2} pairs share units", fontsize=SMALL, color=INK)
    for c in range(len(names)):
        axis.fill_between([c - 0.5, c + 0.5], c - 0.5, c + 0.5, color=base.FAINT, linewidth=0)
    if len(names) > _WRITTEN:
        color_bar(figure, image, axis, "shared units")
        return settled(figure)
    for place in np.arange(1, len(names)) - 0.5:  # thin lines between cells, so that blank cells are visible
        axis.axhline(place, color=base.FAINT, linewidth=0.5)
        axis.axvline(place, color=base.FAINT, linewidth=0.5)
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


def connectivity_map(weights: Values, classes: Sequence[str], title: str = "") -> Figure:
    """Mean weight between classes' ensembles of two layers: red excites, blue inhibits, white is 0.

    Args:
        weights: Mean weights `(C, C)`, to the ensemble of the row in the later layer, from that of the column in the
            earlier one; NaN (an empty ensemble) is grey.
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
    image = axis.imshow(
        shown, cmap=color_map("RdBu_r", bad=base.MISSING), vmin=-high, vmax=high, interpolation="nearest"
    )
    class_ticks(axis, names, figure.get_figheight() - 1.3)
    axis.set_xlabel("from the ensemble of", fontsize=SMALL, color=INK)
    axis.set_ylabel("to the ensemble of", fontsize=SMALL, color=INK)
    if not shown.count():
        empty(axis, "no ensemble has units")
    color_bar(figure, image, axis, "mean weight")
    return settled(figure)


def _square(classes: int, title: str) -> tuple[Figure, Axes]:
    """A figure with cells large enough for a number."""
    side = 1.6 + 0.3 * min(max(classes, 8), 24)
    figure = base.new_figure(side + 0.6, side)
    figure.set_layout_engine("compressed")  # the other layout engine makes room for names only in a second draw
    axis = figure.subplots()
    tidy(axis, title, frame=True)
    return figure, axis
