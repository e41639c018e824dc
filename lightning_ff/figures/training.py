"""A value of each class over training. Shapes: E epochs, C classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_ff.figures import base
from lightning_ff.figures.arrays import Values, array, class_names, given
from lightning_ff.figures.base import Axes, Figure, again, color, empty, left_label, panels, plain, settled, tidy

_NAMED = 20  # classes up to which each line has its own colour and name
_Look = tuple[str, str, float]  # of a line: colour, style, width


def growth(
    sizes: Mapping[str, Values], classes: Sequence[str], epochs: Values, ylabel: str = "units in the ensemble"
) -> Figure:
    """One panel per layer: a line per class over training, its name at the end.

    Of more than 20 classes the lines are grey, and the mean, the highest and the lowest are named.

    Args:
        sizes: Name of the layer to ensembles' sizes, or other numbers, `(E, C)`; NaN is a gap.
        classes: Names of the classes.
        epochs: Epochs of the measurements `(E,)`.
        ylabel: What the numbers are.

    Raises:
        ValueError: shapes that do not fit.
    """
    names = class_names(classes)
    when = array("epochs", epochs, (None,), "give the epoch of each measurement")
    height = max(2.7, 1.0 + 0.14 * min(len(names), _NAMED))
    figure, axes = panels(len(given("sizes", sizes, "sizes (E, C)")), 3.4, height, most=3)
    for axis, (layer, values) in zip(axes, sizes.items(), strict=True):
        shape = (len(when), len(names))
        numbers = array(f"sizes[{layer!r}]", values, shape, "give a row per epoch and a column per class")
        tidy(axis, layer, "epoch")
        axis.locator_params("x", integer=True, nbins=6)
        axis.set(**({"xlim": (when.min(), when.max())} if len(when) > 1 else {"xticks": when}))
        if not np.isfinite(numbers).any():
            empty(axis, "no values")
        elif len(names) <= _NAMED:
            looks = [(color(c), again(c, base.LINES), 1.3) for c in range(len(names))]
            _curves(axis, when, numbers, names, looks, height - 0.8)
        else:
            _summary(axis, when, numbers, names, height - 0.8)
    left_label(axes, ylabel)
    return settled(figure)


def _summary(axis: Axes, when: np.ndarray, numbers: np.ndarray, names: Sequence[str], height: float) -> None:
    """All lines in grey; the mean, and the classes that end highest and lowest, with their names."""
    axis.plot(when, numbers, color=base.SOFT, linewidth=0.5, alpha=0.6)
    last = np.array([_last(column) for column in numbers.T])
    ends = [int(np.nanargmax(last)), int(np.nanargmin(last))]
    known = np.isfinite(numbers)
    mean = np.where(known, numbers, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)
    chosen = np.column_stack([mean, numbers[:, ends]])
    looks = [(base.INK, "-", 2.0), (color(3), "-", 1.3), (color(0), "-", 1.3)]
    _curves(axis, when, chosen, ["mean", *(names[c] for c in ends)], looks, height)


def _last(column: np.ndarray) -> float:
    finite = column[np.isfinite(column)]
    return float(finite[-1]) if len(finite) else float("nan")


def _curves(
    axis: Axes, when: np.ndarray, numbers: np.ndarray, names: Sequence[str], looks: Sequence[_Look], height: float
) -> None:
    """Lines with their names at the right, moved apart if they would overlap, given the axis height in inches."""
    marker = "o" if len(when) <= 12 else ""
    for column, (ink, line, width) in zip(numbers.T, looks, strict=True):
        axis.plot(when, column, color=ink, linestyle=line, linewidth=width, marker=marker, markersize=2.5)
    low = axis.get_ylim()[0] if np.nanmin(numbers) < 0 else 0.0
    high = axis.get_ylim()[1] if numbers[np.isfinite(numbers)].any() else 1.0
    axis.set_ylim(low, high)
    ends = np.array([_last(column) for column in numbers.T])
    named = np.flatnonzero(np.isfinite(ends)).tolist()
    for c, place in zip(named, apart((ends[named] - low) / (high - low), base.LINE / height), strict=True):
        ink = looks[c][0]
        arrow = {"arrowstyle": "-", "color": ink, "linewidth": 0.5, "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 0}
        look: dict[str, Any] = {"fontsize": base.SMALL, "color": ink, "va": "center", "annotation_clip": False}
        point = (when[np.isfinite(numbers[:, c])][-1], ends[c])
        axis.annotate(plain(names[c]), point, (1.07, place), "data", "axes fraction", arrowprops=arrow, **look)


def apart(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Positions between 0 and 1, at least a gap apart, in the order of `wanted` and as close to it as possible.

    Example::

        >>> apart(np.array([0.5, 0.5, 0.1]), 0.2).round(2).tolist()
        [0.4, 0.6, 0.1]
    """
    from sklearn.isotonic import isotonic_regression

    if not len(wanted):
        return wanted
    order = np.argsort(wanted, kind="stable")
    steps = min(gap, 1 / max(1, len(wanted) - 1)) * np.arange(len(wanted))
    places = np.empty_like(wanted)
    places[order] = isotonic_regression(wanted[order] - steps, y_min=0, y_max=1 - steps[-1]) + steps
    return places
