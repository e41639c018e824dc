"""Each class's mean activity, unit by unit, with its ensemble marked. Shapes: U units, C classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_ff.figures import base
from lightning_ff.figures.arrays import Values, array, class_names
from lightning_ff.figures.base import PALETTE, SMALL, SOFT, Axes, Figure, empty, panels, plain, settled, short, tidy


def class_profile(mean: Values, members: Values, title: str = "") -> Figure:
    """Mean activity of every unit on one class, members of its ensemble marked.

    Args:
        mean: Mean activities `(U,)`.
        members: The class's ensemble `(U,)`, bool.
        title: Above the picture; the size of the ensemble is added.

    Raises:
        ValueError: shapes that do not fit.
    """
    values = array("mean", mean, (None,), "give the mean activity of each unit")
    held = array("members", members, values.shape, "give one bool per unit")
    figure, (axis,) = panels(1, 5.2, 2.4)
    _profile(axis, values, held > 0, short(title, 40), values)
    axis.set_xlabel("unit", fontsize=SMALL, color=base.INK)
    axis.set_ylabel("mean activity", fontsize=SMALL, color=base.INK)
    return settled(figure)


def class_profiles(mean: Values, members: Values, classes: Sequence[str], title: str = "") -> Figure:
    """:func:`class_profile` for every class of a layer, on one scale.

    Args:
        mean: Mean activities `(C, U)`.
        members: Ensembles `(C, U)`, bool.
        classes: Names of the classes.
        title: Above the picture.

    Raises:
        ValueError: shapes that do not fit.
    """
    names = class_names(classes)
    values = array("mean", mean, (len(names), None), "give a row per class and a column per unit")
    held = array("members", members, values.shape, "give a row per class and a column per unit")
    figure, axes = panels(len(names), 2.0, 1.5, most=5 if len(names) <= 25 else 8, extra=0.6, layout=None)
    columns = axes[0].get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
    for k, (axis, name, row, inside) in enumerate(zip(axes, names, values, held > 0, strict=True)):
        _profile(axis, row, inside, short(name, 14), values)
        if k % columns:
            axis.set_yticks([])  # all panels share the scale of the first
        if k + columns < len(names):
            axis.set_xticks([])
    width, height = figure.get_size_inches()  # margins in inches: measuring every label of many panels takes seconds
    across = {"left": 0.65 / width, "right": 1 - 0.1 / width, "wspace": 0.12}
    figure.subplots_adjust(bottom=0.5 / height, top=1 - 0.55 / height, hspace=0.35, **across)
    figure.suptitle(plain(title, 80), fontsize=SMALL + 2, color=base.INK)
    figure.supxlabel("unit", fontsize=SMALL, color=base.INK)
    figure.supylabel("mean activity", fontsize=SMALL, color=base.INK)
    return figure


def _profile(axis: Axes, mean: np.ndarray, members: np.ndarray, title: str, scale: np.ndarray) -> None:
    """One panel, with limits from 0, or the lowest value of the scale if it is negative, to above the highest."""
    size = f"{members.sum()} unit{'' if members.sum() == 1 else 's'}"
    tidy(axis, f"{title}: {size}" if title else size, most=56)
    axis.set_xlim(-0.02 * len(mean) - 0.5, 1.02 * len(mean) - 0.5)
    finite = scale[np.isfinite(scale)]
    low, high = finite.min(initial=0.0), finite.max(initial=0.0)
    axis.set_ylim(*((1.05 * low, 1.05 * high) if high > low else (0.0, 1.0)))
    drawn = np.isfinite(mean)
    if not drawn.any() or not mean[drawn].any():
        empty(axis, "no unit is active" if drawn.any() else "no samples")
    units = np.arange(len(mean))
    axis.vlines(units[drawn], 0, mean[drawn], color=SOFT, linewidth=0.5)
    axis.plot(units[members], mean[members], ".", color=PALETTE[3], markersize=3.5)
