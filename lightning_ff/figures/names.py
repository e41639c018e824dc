"""Tick labels that fit: thinned out and rotated until they are readable."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any, Literal

import numpy as np

from lightning_ff.figures.base import LETTER, LINE, SOFT, Axes, plain


def name_ticks(
    axis: Axes, side: Literal["x", "y"], places: np.ndarray, names: Sequence[str], room: float, most: int = 16
) -> None:
    """Tick labels of N letters, or more if they would look equal, as many as fit into the axis in inches."""
    step = max(1, ceil(len(places) * LINE / room)) if len(places) else 1
    while most < 64 and len({plain(name, most) for name in names}) < len(set(names)):
        most += 4  # names of layers may differ in the middle alone
    shown = [plain(name, most) for name in names][::step]
    ticks = axis.xaxis if side == "x" else axis.yaxis
    ticks.set_ticks(places[::step], shown)
    gap = room / max(1, len(shown))
    if side == "x" and max(map(len, shown), default=0) * LETTER > gap:
        oblique: dict[str, Any] = {"rotation": 45, "horizontalalignment": "right", "rotation_mode": "anchor"}
        for label in axis.get_xticklabels():
            label.set(**({"rotation": 90} if gap < 0.22 else oblique))


def class_rows(axis: Axes, label: np.ndarray, classes: Sequence[str], room: float) -> None:
    """Names at the middle of each class's rows, and lines between classes; labels `(S,)` are sorted."""
    present, starts = np.unique(label, return_index=True)
    ends = np.append(starts[1:], len(label))
    name_ticks(axis, "y", (starts + ends - 1) / 2, [classes[c] for c in present], room)
    axis.tick_params("y", length=0)
    if len(present) <= 30:
        for start in starts[1:]:
            axis.axhline(start - 0.5, color=SOFT, linewidth=0.4)


def class_ticks(axis: Axes, names: Sequence[str], room: float, rows: Sequence[str] | None = None) -> None:
    """Names of the classes on both axes of a map, given the axes' lengths in inches; rows may have other names."""
    places = np.arange(len(names))
    name_ticks(axis, "x", places, names, room)
    name_ticks(axis, "y", places, names if rows is None else rows, room, most=16 if rows is None else 26)
    axis.tick_params("both", length=0)
