"""Histograms of weights by sign, and of the inhibition ratio of members of ensembles and other units."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lightning_ff.figures import base
from lightning_ff.figures.arrays import Values, flat, given
from lightning_ff.figures.base import PALETTE, Figure, empty, left_label, legend, log_scale, panels, settled, tidy

_POSITIVE, _NEGATIVE = PALETTE[3], PALETTE[0]  # as in connectivity_map: red excites, blue inhibits
_MEMBERS, _OTHERS = PALETTE[0], PALETTE[1]  # as in inhibition_bars


def weight_histograms(weights: Mapping[str, Values], bins: int = 80) -> Figure:
    """One panel per layer: share of the weights by size, on a logarithmic scale; the negative share is written in.

    Args:
        weights: Name of the layer to weights of any shape; values that are not finite are left out.
        bins: Number of bars, half of them below 0.

    Raises:
        ValueError: no layer, or a number of bars that is not even or below 2.
    """
    if bins < 2 or bins % 2:
        raise ValueError(f"bins={bins}: give an even number, so that no bar holds weights of both signs")
    figure, axes = panels(len(given("weights", weights, "weights")), 2.8, 2.3)
    for axis, (layer, values) in zip(axes, weights.items(), strict=True):
        tidy(axis, layer, "weight")
        finite = flat(values)
        if not len(finite):
            empty(axis, "no weights")
            continue
        limit = float(np.abs(finite).max()) or 1.0
        counts, edges = np.histogram(finite, bins, (-limit, limit))
        shares = counts / len(finite)
        sides = [_NEGATIVE] * (bins // 2) + [_POSITIVE] * (bins // 2)
        axis.bar(edges[:-1], shares, np.diff(edges), align="edge", color=sides)
        log_scale(axis, "y", 0.5 / len(finite), 12 * shares.max())
        axis.locator_params("x", nbins=5)
        text = f"{100 * (finite < 0).mean():.1f} % negative"
        axis.text(0.02, 0.98, text, transform=axis.transAxes, va="top", fontsize=base.SMALL, color=base.INK)
    left_label(axes, "share of weights")
    return settled(figure)


def inhibition_histograms(ratios: Mapping[str, tuple[Values, Values]], bins: int = 30) -> Figure:
    """One panel per layer: inhibition over excitation of members of ensembles and of other units, medians as lines.

    Args:
        ratios: Name of the layer to the ratios of members and of others, of any shape; values that are not finite
            are left out. The scale is logarithmic; the first and last bars include all values beyond it, also 0.
        bins: Number of bars.

    Raises:
        ValueError: no layer, or no bars.
    """
    from matplotlib.patches import Patch

    if bins < 1:
        raise ValueError(f"bins={bins}: must be at least 1")
    figure, axes = panels(len(given("ratios", ratios, "ratios of members and of others")), 2.9, 2.3, extra=0.3)
    for axis, (layer, (members, others)) in zip(axes, ratios.items(), strict=True):
        tidy(axis, layer, "inhibition / excitation")
        sides = [flat(members), flat(others)]
        every = np.concatenate(sides)
        every = every[every > 0]
        if not len(every):
            empty(axis, "no ratios")
            continue
        low, high = np.percentile(every, (1, 99))
        low, high = (low, high) if high > 1.1 * low else (low / 2, high * 2)
        edges = np.geomspace(low, high, bins + 1)
        edges[[0, -1]] = low, high
        for values, color in zip(sides, (_MEMBERS, _OTHERS), strict=True):
            shares = np.histogram(values.clip(low, high), edges)[0] / max(1, len(values))
            axis.bar(edges[:-1], shares, np.diff(edges), align="edge", color=color, alpha=0.6)
            if len(values):
                axis.axvline(np.median(values).clip(low, high), color=color, linewidth=1.4)
        beside = (high / low) ** 0.03
        log_scale(axis, "x", low / beside, high * beside)
    left_label(axes, "share of units")
    handles = [Patch(color=color, alpha=0.6) for color in (_MEMBERS, _OTHERS)]
    legend(figure, handles, ["members", "other units"])
    return settled(figure)
