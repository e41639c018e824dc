"""Asynchronous averages of tensors over processes, in one flat message."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Size, Tensor

Key = tuple[str, str]  # dtype and device


class Part(NamedTuple):
    """Tensors of one dtype and device in flight: their indices and shapes, the flat message, and its work handle."""

    key: Key
    indices: list[int]
    shapes: list[Size]
    sent: Tensor
    work: Any


class Average:
    """Averages tensors over processes, in memory that it reuses.

    Tensors of one dtype and device are sent in one message. The means are views of that memory, valid until the next
    `start`.

    Args:
        group: Process group; None is all processes.
        compression: Dtype of the message; None is that of the tensors.
    """

    def __init__(self, group: Any = None, compression: torch.dtype | None = None) -> None:
        self.group, self.compression = group, compression
        self._flat: dict[Key, Tensor] = {}
        self._in_flight: list[Part] = []

    def start(self, tensors: Sequence[Tensor]) -> Average:
        """Launch the all-reduce of tensors, of equal shapes in every process; they may be changed afterwards."""
        keys = [(str(tensor.dtype), str(tensor.device)) for tensor in tensors]
        self._in_flight = []
        for key, chosen in groupby(sorted(range(len(keys)), key=keys.__getitem__), keys.__getitem__):
            indices = list(chosen)
            shapes = [tensors[i].shape for i in indices]
            packed = self._buffer(key, sum(shape.numel() for shape in shapes), tensors[indices[0]])
            pack([tensors[i] for i in indices], packed, 1 / dist.get_world_size(self.group))
            self._in_flight.append(Part(key, indices, shapes, *self._send(packed)))
        return self

    def wait(self) -> list[Tensor]:
        """The means, in the order of the tensors."""
        means: dict[int, Tensor] = {}
        for part in self._in_flight:
            means.update(zip(part.indices, shaped(self._mean(part), part.shapes), strict=True))
        self._in_flight = []
        return [means[i] for i in sorted(means)]

    def into(self, tensors: Sequence[Tensor]) -> None:
        """Wait, and write the means into tensors of the same shapes."""
        for tensor, mean in zip(tensors, self.wait(), strict=True):
            tensor.copy_(mean)

    def _buffer(self, key: Key, size: int, like: Tensor) -> Tensor:
        """Flat buffer for tensors of one dtype and device."""
        return self._flat.setdefault(key, like.new_empty(0)).resize_(size)

    def _send(self, packed: Tensor) -> tuple[Tensor, Any]:
        sent = packed if self.compression is None else packed.to(self.compression)
        return sent, dist.all_reduce(sent, group=self.group, async_op=True)

    def _mean(self, part: Part) -> Tensor:
        part.work.wait()
        flat = self._flat[part.key]
        return flat if part.sent is flat else flat.copy_(part.sent)


def shaped(flat: Tensor, shapes: Sequence[Size]) -> list[Tensor]:
    """Consecutive views of a flat tensor with these shapes."""
    parts = flat.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


@torch.no_grad()
def pack(tensors: Sequence[Tensor], flat: Tensor, share: float) -> None:
    """Write each tensor, times `share`, into a flat one, one after another."""
    if flat.is_cpu:  # one pass over memory; elsewhere as few kernels as possible
        for tensor, part in zip(tensors, shaped(flat, [tensor.shape for tensor in tensors]), strict=True):
            torch.mul(tensor, share, out=part)
    else:
        torch.cat([tensor.reshape(-1) for tensor in tensors], out=flat).mul_(share)
