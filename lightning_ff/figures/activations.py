"""What single units do: the wall of activations, and each class's mean activity with its ensemble marked.

Shapes: S samples, U units, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_ff.figures.arrays import Values, array, class_labels, class_names, given
from lightning_ff.figures.base import (
    INK,
    PALETTE,
    SMALL,
    SOFT,
    color_bar,
    color_map,
    empty,
    name_ticks,
    panels,
    plain,
    settled,
    short,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def activation_wall(
    activations: Mapping[str, Values],
    label: Values,
    classes: Sequence[str],
    members: Mapping[str, Values] | None = None,
    percentile: float = 99.5,
) -> Figure:
    """One panel per layer: a row for each sample, sorted by class, and a column for each unit.

    Args:
        activations: Name of the layer to activations `(S, U)`.
        label: Class of each sample `(S,)`.
        classes: Names of the classes.
        members: Name of the layer to ensembles `(C, U)`, bool: units are sorted by the class in whose ensemble they are
            most active, those in none come last. Layers that are not named, and all without it, keep their order.
        percentile: Of all positive activations of a layer, what the darkest colour stands for.

    Raises:
        ValueError: shapes or labels that do not fit, or a percentile outside (0, 100].
    """
    names = class_names(classes)
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile={percentile}: must lie in (0, 100]")
    layers = {
        layer: array(f"activations[{layer!r}]", values, (None, None), "give a row per sample and a column per unit")
        for layer, values in given("activations", activations, "activations (S, U)").items()
    }
    width = min(9.5, max(3.5, 1.2 + max(h.shape[1] for h in layers.values()) / 120))  # a unit is a pixel at 120 dpi
    figure, axes = panels(len(layers), width, 2.6 if width > 5 else 3.2, most=max(1, int(10.5 // width)))
    for axis, (layer, h) in zip(axes, layers.items(), strict=True):
        of = class_labels(label, len(h), len(names))
        tidy(axis, layer, "units", frame=True)
        order = np.arange(h.shape[1])
        if members is not None and layer in members:
            shape = (len(names), h.shape[1])
            held = array(f"members[{layer!r}]", members[layer], shape, "give a row per class and a column per unit") > 0
            order = unit_order(held, _class_means(h, of, len(names)))
            inside = int(held.any(0).sum())
            axis.set_xlabel(f"{inside} units by ensemble, {len(order) - inside} in none")
            axis.axvline(inside - 0.5, color=PALETTE[3], linewidth=0.8)
        rows = np.argsort(of, kind="stable")
        _wall(axis, np.ma.masked_invalid(h[np.ix_(rows, order)]), percentile)
        class_rows(axis, of[rows], names, 1.9 if width > 5 else 2.5)
        positive = h[np.isfinite(h) & (h > 0)]
        image = axis.images[0]
        beyond = bool((positive > image.get_clim()[1]).any())
        color_bar(figure, image, axis, "activation", extend="max" if beyond else "neither")
        axis.locator_params("x", integer=True)
        if not len(positive):
            empty(axis, "no unit is active" if np.isfinite(h).any() else "no values")
    return settled(figure)


def _wall(axis: Axes, activations: np.ndarray, percentile: float) -> None:
    """White is 0 and below; the darkest colour is for the percentile of what is positive."""
    positive = np.ma.compressed(activations[activations > 0])
    high = float(np.percentile(positive, percentile)) if len(positive) else 1.0
    colors = color_map("Blues")
    axis.imshow(activations, colors, vmin=0.0, vmax=high, aspect="auto", interpolation="antialiased")


def unit_order(members: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Units by the class in whose ensemble they are most active, there by activity; those in none last `(U,)`.

    Args:
        members: Ensembles `(C, U)`, bool.
        means: Mean activities `(C, U)`.
    """
    inside = np.where(members, means, -np.inf)
    first = np.where(members.any(0), inside.argmax(0), len(members))
    return np.lexsort((-means.max(0), first))


def _class_means(h: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """Mean of what is finite for each class, 0 where it has no samples, `(C, U)`."""
    finite = np.nan_to_num(h, posinf=0.0, neginf=0.0)
    return np.stack([finite[label == c].sum(0) / max(1, (label == c).sum()) for c in range(classes)])


def class_rows(axis: Axes, label: np.ndarray, classes: Sequence[str], room: float) -> None:
    """Names at the middle of each class's rows and lines between them; labels `(S,)` are sorted."""
    present, starts = np.unique(label, return_index=True)
    ends = np.append(starts[1:], len(label))
    name_ticks(axis, "y", (starts + ends - 1) / 2, [classes[c] for c in present], room)
    axis.tick_params("y", length=0)
    if len(present) <= 30:
        for start in starts[1:]:
            axis.axhline(start - 0.5, color=SOFT, linewidth=0.4)


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
    figure, axes = panels(len(names), 2.0, 1.5, most=5 if len(names) <= 25 else 8, extra=0.4)
    columns = axes[0].get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
    for k, (axis, name, row, inside) in enumerate(zip(axes, names, values, held > 0, strict=True)):
        _profile(axis, row, inside, short(name, 14), _limits(values))
        if k % columns:
            axis.set_yticks([])  # the first one's scale is all the others'
        if k + columns < len(names):
            axis.set_xticks([])
    figure.suptitle(plain(title, 80), fontsize=SMALL + 2, color=INK)
    figure.supxlabel("unit", fontsize=SMALL, color=INK)
    figure.supylabel("mean activity", fontsize=SMALL, color=INK)
    return settled(figure)


def _limits(mean: np.ndarray) -> tuple[float, float]:
    """From 0, or the lowest below it, to a little above the highest."""
    finite = mean[np.isfinite(mean)]
    low, high = min(0.0, finite.min(initial=0.0)), max(0.0, finite.max(initial=0.0))
    return (1.05 * low, 1.05 * high) if high > low else (0.0, 1.0)


def _profile(axis: Axes, mean: np.ndarray, members: np.ndarray, title: str, limits: tuple[float, float]) -> None:
    count = int(members.sum())
    size = f"{count} unit" if count == 1 else f"{count} units"
    tidy(axis, f"{title}: {size}" if title else size)
    axis.set_xlim(-0.02 * len(mean) - 0.5, 1.02 * len(mean) - 0.5)
    axis.set_ylim(*limits)
    drawn = np.isfinite(mean)
    if not drawn.any() or not mean[drawn].any():
        empty(axis, "no unit is active" if drawn.any() else "no samples")
    units = np.arange(len(mean))
    axis.vlines(units[drawn], 0, mean[drawn], color=SOFT, linewidth=0.5)
    axis.plot(units[members], mean[members], ".", color=PALETTE[3], markersize=3.5)
