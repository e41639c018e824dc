"""Averages over processes of one machine without GPUs, through memory that they share."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.constants import default_pg_timeout
from typing_extensions import override

from lightning_ff.strategies.bell import Bell, hang
from lightning_ff.strategies.once import Desk, Once, checked, desk
from lightning_ff.strategies.reduction import Average, Kind, Part, shaped

LINE = 64  # both areas begin where a line of the processor's cache does, for types of one byte and more
MOST = 4  # one process adds up what all have laid out: beyond a few, messages round a ring take less time


class Near(NamedTuple):
    """What averages have in common: a bell between the processes, and a desk where they note what is done."""

    bell: Bell
    desk: Desk

    def close(self) -> None:
        """Let go of what the processes have in common."""
        self.bell.close()
        self.desk.close()


class SharedAverage(Average):
    """Averages tensors over processes that see each other's memory; no message goes but the news that they are there.

    Sockets would copy every byte four times on the processors that compute. Each process lays its shares into memory
    that the others see too, of the last two times in turn. The first process that needs a mean adds the others' shares
    to those of the first rank, and all read it there: a mean is not to be written to. Once a process has heard of the
    others' shares of one time, they have done with the mean of the time before. Where memory cannot be had, messages go
    instead.

    Args:
        near: Of the processes, from :func:`near`.
        group: The processes; None is all.
    """

    def __init__(self, near: Near, group: Any = None) -> None:
        super().__init__(group)
        self.near = near
        self.rank = dist.get_rank(group)
        self._shared: dict[Kind, list[Tensor]] = {}
        self._sizes: dict[Kind, int] = {}
        self._turn: dict[Kind, int] = {}
        self._once: dict[Kind, Once] = {}
        self._ahead: list[Tensor] = []

    def ahead(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Memory where this process's shares in the next means of such tensors may be laid before `start`.

        `start` is to get that very memory in a tensor's stead, then. None between `start` and `wait`, as others may
        still read there, and where tensors are not of the shapes and types of the last time.
        """
        return self._ahead if [*map(_form, tensors)] == [*map(_form, self._ahead)] else []

    @override
    def start(self, tensors: Sequence[Tensor]) -> Average:
        self._ahead = []
        return super().start(tensors)

    @override
    def wait(self) -> list[Tensor]:
        parts, means = self._flying, super().wait()
        ahead: dict[int, Tensor] = {}
        for part in parts:
            if self._shared[part.kind]:
                free = self._shared[part.kind][self.rank][1 - self._turn[part.kind]]
                ahead.update(zip(part.places, shaped(free, part.shapes), strict=True))
        self._ahead = [ahead[i] for i in range(len(means))] if len(ahead) == len(means) else []
        return means

    @override
    def _memory(self, kind: Kind, size: int, like: Tensor) -> Tensor:
        if self._sizes.get(kind) != size:
            self._sizes[kind] = size
            row = -(-size // LINE) * LINE
            both = share(2 * row, like.dtype, self.group) or ()
            self._shared[kind] = [of_one.view(2, row)[:, :size] for of_one in both]
            self._once[kind] = self.near.desk.once()
        if not self._shared[kind]:
            return super()._memory(kind, size, like)
        self._turn[kind] = 1 - self._turn.get(kind, 0)
        return self._shared[kind][self.rank][self._turn[kind]]

    @override
    @torch.no_grad()
    def _lay(self, kind: Kind, tensors: Sequence[Tensor], packed: Tensor) -> None:
        share = 1 / dist.get_world_size(self.group)
        for tensor, part in zip(tensors, shaped(packed, [tensor.shape for tensor in tensors]), strict=True):
            if not _same(tensor, part):
                torch.mul(tensor, share, out=part)

    @override
    def _send(self, kind: Kind, packed: Tensor) -> tuple[Tensor, Any]:
        if not self._shared[kind]:
            return super()._send(kind, packed)
        return packed, self.near.bell.ring()

    @override
    def _mean(self, part: Part) -> Tensor:
        if not self._shared[part.kind]:
            return super()._mean(part)
        part.work.wait()
        mean, *others = (shared[self._turn[part.kind]] for shared in self._shared[part.kind])
        with self._once[part.kind].first(part.work.number) as needed:
            if needed:
                for other in others:
                    mean.add_(other)
        return mean


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype


def _same(tensor: Tensor, part: Tensor) -> bool:
    return tensor.data_ptr() == part.data_ptr()


def near(group: Any = None, timeout: timedelta = default_pg_timeout) -> Near | None:
    """For processes of a group, few enough, that see each other's memory; a question to be asked by all of them."""
    few = 1 < dist.get_world_size(group) <= MOST
    if not few or share(1, torch.uint8, group) is None:
        return None
    bell = hang(group, timeout)
    if bell is None:
        return None
    found = desk(group, timeout)
    if found is None:
        bell.close()
        return None
    return Near(bell, found)


def share(size: int, dtype: torch.dtype, group: Any = None) -> list[Tensor] | None:
    """So many numbers of each process of a group, by rank; in all of them None, where one cannot have them."""
    name, file = uuid.uuid4().hex, -1
    if sys.platform == "linux" and size:
        with suppress(OSError, AttributeError):  # not every Python knows it
            file = os.memfd_create(name)
    offers: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(offers, (f"/proc/{os.getpid()}/fd/{file}", name), group=group)
    try:
        views = [_view(path, name, size, dtype) for path, name in offers]
    except (OSError, RuntimeError, ValueError):
        views = []
    seen: list[Any] = [None] * len(offers)
    dist.all_gather_object(seen, bool(views), group=group)
    if file >= 0:
        os.close(file)
    return views if all(seen) else None


def _view(path: str, name: str, size: int, dtype: torch.dtype) -> Tensor:
    """Memory behind a path, made as long as need be, if it is what was offered."""
    return torch.from_file(checked(path, name), shared=True, size=size, dtype=dtype)
