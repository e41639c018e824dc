"""The wall of activations: a map of every unit and sample. Shapes: S samples, U units, C classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_ff.figures.arrays import Values, array, class_labels, class_names, given
from lightning_ff.figures.base import PALETTE, Figure, color_bar, color_map, empty, panels, settled, tidy
from lightning_ff.figures.names import class_rows


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
            most active, units in none are last. Layers that are not given keep their order.
        percentile: Percentile of a layer's positive activations that has the darkest colour.

    Raises:
        ValueError: shapes or labels that do not fit, or a percentile outside (0, 100].
    """
    names = class_names(classes)
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile={percentile}: must lie in (0, 100]")
    remedy = "give a row per sample and a column per unit"
    named = given("activations", activations, "activations (S, U)").items()
    layers = {layer: array(f"activations[{layer!r}]", values, (None, None), remedy) for layer, values in named}
    width = min(9.5, max(3.5, 1.2 + max(h.shape[1] for h in layers.values()) / 120))  # a unit is a pixel at 120 dpi
    figure, axes = panels(len(layers), width, 2.6 if width > 5 else 3.2, most=max(1, int(10.5 // width)))
    for axis, (layer, h) in zip(axes, layers.items(), strict=True):
        of = class_labels(label, len(h), len(names))
        tidy(axis, layer, "units", frame=True)
        order, inside = np.arange(h.shape[1]), None
        if members is not None and layer in members:
            shape = (len(names), h.shape[1])
            held = array(f"members[{layer!r}]", members[layer], shape, "give a row per class and a column per unit") > 0
            finite = np.nan_to_num(h, posinf=0.0, neginf=0.0)
            means = [finite[of == c].sum(0) / max(1, (of == c).sum()) for c in range(len(names))]
            order = unit_order(held, np.stack(means))
            inside = int(held.any(0).sum())
            axis.set_xlabel(f"{inside} units by ensemble, {len(order) - inside} in none")
        rows = np.argsort(of, kind="stable")
        positive = h[np.isfinite(h) & (h > 0)]
        high = float(np.percentile(positive, percentile)) if len(positive) else 1.0
        shown = np.ma.masked_invalid(h[np.ix_(rows, order)])
        look: dict[str, Any] = {"vmin": 0.0, "vmax": high, "aspect": "auto", "interpolation": "antialiased"}
        image = axis.imshow(shown, color_map("Blues"), **look)  # white is 0 and below
        if inside is not None:
            axis.axvline(inside - 0.5, color=PALETTE[3], linewidth=0.8)
        class_rows(axis, of[rows], names, 1.9 if width > 5 else 2.5)
        color_bar(figure, image, axis, "activation", extend="max" if (positive > high).any() else "neither")
        axis.locator_params("x", integer=True)
        if not len(positive):
            empty(axis, "no unit is active" if np.isfinite(h).any() else "no values")
    return settled(figure)


def unit_order(members: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Order of units `(U,)` from ensembles `(C, U)` and mean activities `(C, U)`.

    By the class in whose ensemble they are most active, then by activity; units in none last.
    """
    inside = np.where(members, means, -np.inf)
    first = np.where(members.any(0), inside.argmax(0), len(members))
    return np.lexsort((-means.max(0), first))
