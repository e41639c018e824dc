"""Positives above negatives, and histograms of their goodness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from torch import Tensor

from lightning_ff.figures.base import Figure, new_figure

_POSITIVE, _NEGATIVE = "#0b6e4f", "#c44536"


def tile(encoded: Tensor, input_shape: Sequence[int]) -> np.ndarray:
    """One encoded input as a picture `(H, W)` or `(H, W, 3)`; an appended code becomes a strip below the image.

    Args:
        encoded: The network's input `(...)`: an image, an image with label channels, or flat with a code at its end.
        input_shape: Shape of the plain input.
    """
    values, size = encoded.detach().float().cpu(), prod(input_shape)
    if values.dim() == 1:
        image, code = values[:size], values[size:].numpy()
        plain = _picture(image.view(*input_shape) if len(input_shape) == 3 else image.view(1, 1, -1))
        return _with_strip(plain, code) if len(code) else plain
    if values.dim() == 2:
        return _picture(values.unsqueeze(0))
    channels = input_shape[0]
    plain = _picture(values[:channels])
    return plain if len(values) == channels else _joined(plain, _picture(values[channels : channels + 1]), 1)


def _picture(image: Tensor) -> np.ndarray:
    low, high = float(image.min()), float(image.max())
    scaled = ((image - low) / (high - low if high > low else 1.0)).numpy()
    return scaled.transpose(1, 2, 0) if scaled.shape[0] == 3 else scaled[0]


def _with_strip(picture: np.ndarray, code: np.ndarray) -> np.ndarray:
    """The picture, enlarged until every entry of the code has its own cells in the strip below."""
    factor = -(-3 * len(code) // picture.shape[1])
    large = picture.repeat(factor, 0).repeat(factor, 1)
    width, high = large.shape[1], code.max()
    cells = (code / (high if high > 0 else 1.0))[None, np.arange(width) * len(code) // width]
    return _joined(large, cells.repeat(max(1, width // 8), 0), 0)


def _joined(picture: np.ndarray, grey: np.ndarray, axis: int) -> np.ndarray:
    return np.concatenate((picture, grey if picture.ndim == 2 else grey[..., None].repeat(3, 2)), axis)


def pairs(positive: Tensor, negative: Tensor, input_shape: Sequence[int]) -> Figure:
    """Positives in the upper row, negatives in the lower.

    Args:
        positive: Encoded inputs `(P, ...)`.
        negative: Encoded inputs `(M, ...)`.
        input_shape: Shape of the plain input.
    """
    columns = max(len(positive), len(negative))
    figure = new_figure(max(3.0, 0.9 * columns), 2.4)
    axes = figure.subplots(2, columns, squeeze=False)
    for row, (side, name) in enumerate(((positive, "positive"), (negative, "negative"))):
        for column in range(columns):
            axis = axes[row][column]
            axis.set(xticks=[], yticks=[], visible=column < len(side))
            if column < len(side):
                axis.imshow(tile(side[column], input_shape), cmap="gray", interpolation="nearest")
        axes[row][0].set_ylabel(name)
    return figure


def goodness_histograms(sides: Mapping[str, tuple[Tensor, Tensor]], bins: int = 40) -> Figure:
    """One histogram per block: finite goodness of positives and of negatives.

    Args:
        sides: Name of the block to goodness of positives `(P,)` and of negatives `(M,)`.
        bins: Number of bars.
    """
    figure = new_figure(2.6 * len(sides) + 0.8, 2.6)
    axes = figure.subplots(1, len(sides), squeeze=False)[0]
    for axis, (name, (positive, negative)) in zip(axes, sides.items(), strict=True):
        # float64, since edges between neighbouring float32 values are not distinct in float32
        values = [side[side.isfinite()].detach().cpu().double().numpy() for side in (positive, negative)]
        edges = np.histogram_bin_edges(np.concatenate(values), bins)
        for finite, color, label in zip(values, (_POSITIVE, _NEGATIVE), ("positive", "negative"), strict=True):
            weights = np.full(len(finite), 1 / max(1, len(finite)))
            axis.hist(finite, edges, weights=weights, color=color, alpha=0.7, label=label)
        axis.set(title=name, xlabel="goodness", yticks=[])
    axes[0].set_ylabel("share")
    axes[-1].legend(frameon=False)
    return figure
