"""Contents of a picture, read from the Figure and from its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text


def panels(figure: Figure) -> list[Axes]:
    """All axes but colour bars."""
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def color_bars(figure: Figure) -> list[Axes]:
    return [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]


def shown(axis: Axes) -> np.ma.MaskedArray[Any, Any]:
    """The array of the axis' only image."""
    (image,) = axis.images
    return np.ma.asarray(image.get_array())


def bars(axis: Axes) -> list[list[tuple[float, float, float]]]:
    """Centre, bottom and top of the bars of every series."""
    return [
        [(bar.get_x() + bar.get_width() / 2, bar.get_y(), bar.get_y() + bar.get_height()) for bar in series.patches]
        for series in axis.containers
        if isinstance(series, BarContainer)
    ]


def heights(axis: Axes) -> list[list[float]]:
    return [[top for _, _, top in series] for series in bars(axis)]


def words(axis: Axes) -> list[str]:
    return [text.get_text() for text in axis.texts]


def ticks(axis: Axes, side: str) -> dict[float, str]:
    """Position and name of every tick."""
    own = axis.xaxis if side == "x" else axis.yaxis
    return dict(zip(own.get_ticklocs().tolist(), [label.get_text() for label in own.get_ticklabels()], strict=True))


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for own in figure.legends for text in own.get_texts()]


def pixels(figure: Figure) -> np.ndarray:
    """Colours as they are drawn `(height, width, 3)`."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]


def inside(axis: Axes, picture: np.ndarray) -> np.ndarray:
    """The part of a figure's pixels that is one panel without its frame."""
    box = axis.get_window_extent()
    height = len(picture)
    return picture[int(height - box.y1) + 3 : int(height - box.y0) - 3, int(box.x0) + 3 : int(box.x1) - 3]


def overlapping(texts: list[Any]) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap, without leader lines."""
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts if text.get_text()]
    return [
        (a, b)
        for i, (a, first) in enumerate(boxes)
        for b, second in boxes[i + 1 :]
        if first.x0 < second.x1 and second.x0 < first.x1 and first.y0 < second.y1 and second.y0 < first.y1
    ]
