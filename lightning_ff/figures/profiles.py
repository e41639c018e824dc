"""Each class's mean activity, unit by unit, with its ensemble marked.

Shapes: U units, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_ff.figures.arrays import Values, array, class_names
from lightning_ff.figures.base import INK, PALETTE, SMALL, SOFT, empty, panels, plain, settled, short, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    _profile(axis, values, held > 0, short(title, 40), _limits(values))
    axis.set_xlabel("unit", fontsize=SMALL, color=INK)
    axis.set_ylabel("mean activity", fontsize=SMALL, color=INK)
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
        _profile(axis, row, inside, short(name, 14), _limits(values))
        if k % columns:
            axis.set_yticks([])  # all panels share the scale of the first
        if k + columns < len(names):
            axis.set_xticks([])
    _set_margins(figure)
    figure.suptitle(plain(title, 80), fontsize=SMALL + 2, color=INK)
    figure.supxlabel("unit", fontsize=SMALL, color=INK)
    figure.supylabel("mean activity", fontsize=SMALL, color=INK)
    return figure


def _set_margins(figure: Figure) -> None:
    """Set margins in inches: measuring every label of many panels takes seconds."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=0.65 / width, right=1 - 0.1 / width, bottom=0.5 / height, top=1 - 0.55 / height, wspace=0.12, hspace=0.35
    )


def _limits(mean: np.ndarray) -> tuple[float, float]:
    """Limits from 0, or the lowest negative value, to slightly above the highest."""
    finite = mean[np.isfinite(mean)]
    low, high = min(0.0, finite.min(initial=0.0)), max(0.0, finite.max(initial=0.0))
    return (1.05 * low, 1.05 * high) if high > low else (0.0, 1.0)


def _profile(axis: Axes, mean: np.ndarray, members: np.ndarray, title: str, limits: tuple[float, float]) -> None:
    count = int(members.sum())
    size = f"{count} unit" if count == 1 else f"{count} units"
    tidy(axis, f"{title}: {size}" if title else size, most=56)
    axis.set_xlim(-0.02 * len(mean) - 0.5, 1.02 * len(mean) - 0.5)
    axis.set_ylim(*limits)
    drawn = np.isfinite(mean)
    if not drawn.any() or not mean[drawn].any():
        empty(axis, "no unit is active" if drawn.any() else "no samples")
    units = np.arange(len(mean))
    axis.vlines(units[drawn], 0, mean[drawn], color=SOFT, linewidth=0.5)
    axis.plot(units[members], mean[members], ".", color=PALETTE[3], markersize=3.5)
