"""Channel axis of a block's output, from the last layer with weights that ran."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_ff._torch import ConvBase, NormBase

_FIRST = (ConvBase, NormBase, nn.GroupNorm)
_LAST = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention, nn.Embedding)


class Layout(NamedTuple):
    """Output of a layer with weights: its shape `(N, ...)`, number of channels, and their axis, 1 or -1."""

    shape: torch.Size
    channels: int
    axis: int


@contextmanager
def watching(layers: nn.Module) -> Iterator[list[Layout]]:
    """Record the layouts of all layers with weights that run in the context, in order."""
    seen: list[Layout] = []

    def record(module: nn.Module, _: Any, output: Any) -> None:
        h = output[0] if isinstance(output, tuple) else output
        if isinstance(h, Tensor) and h.dim() > 1:
            seen.append(_layout(module, h.shape))

    hooks = [m.register_forward_hook(record) for m in layers.modules() if isinstance(m, (*_FIRST, *_LAST))]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _layout(module: nn.Module, shape: torch.Size) -> Layout:
    if isinstance(module, _FIRST):
        return Layout(shape, shape[1], 1)
    if isinstance(module, nn.LayerNorm) and type(module) is not nn.LayerNorm and shape[1] == module.normalized_shape[0]:
        return Layout(shape, shape[1], 1)  # torchvision's LayerNorm2d
    return Layout(shape, shape[-1], -1)


def channel_axis(shape: torch.Size, seen: list[Layout]) -> int:
    """Axis of the channels, 1 or -1, in an output `(N, ...)` after the layers `seen`.

    The axis is that of the last layer, unless the shape shows that axes were exchanged after it. Without layers,
    channels are first in maps, and last in tokens and vectors.

    Example::

        >>> channel_axis(torch.Size((2, 96, 7, 7)), [Layout(torch.Size((2, 7, 7, 96)), 96, -1)])
        1
    """
    usual = 1 if len(shape) > 3 else -1
    if not seen or len(shape) < 3:
        return usual
    last = seen[-1]
    positions = last.shape[2:] if last.axis == 1 else last.shape[1:-1]
    if shape == last.shape:
        return last.axis
    if tuple(shape[1:]) == (last.channels, *positions):
        return 1
    if tuple(shape[1:]) == (*positions, last.channels):
        return -1
    if len(shape) == len(last.shape):  # pooled or concatenated: a convolution's channels keep their axis
        return 1 if last.axis == 1 or shape[1] == last.channels != shape[-1] else -1
    if tuple(shape[1:]) == (last.channels, positions.numel()):
        return 1
    fits = [axis for axis in (usual, -usual) if shape[axis] == last.channels]
    return fits[0] if fits else usual
