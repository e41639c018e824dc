"""A word between processes of one machine: something is there."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

import torch.distributed as dist
from torch.distributed.constants import default_pg_timeout

_MOST = 2**31 - 1  # milliseconds that the system takes
_ENDED = "process {}, which this one shares memory with, has ended"


class Bell:
    """Tells the other processes of a group that something is there, by a byte in a pipe for each of them.

    All processes ring for the same things in the same order, so numbers say what a ring was for. Who has heard it sees
    what lay in memory before it.

    Args:
        ears: End of the pipe from each other process, by its rank.
        mouths: End of the pipe to each of them.
        timeout: How long it waits for one that is late.
    """

    def __init__(self, ears: dict[int, int], mouths: dict[int, int], timeout: timedelta) -> None:
        self.ears, self.mouths, self.timeout = ears, mouths, timeout
        self.rung = 0
        self.heard = dict.fromkeys(ears, 0)

    def ring(self) -> Ring:
        """Tell the others."""
        for rank, mouth in self.mouths.items():
            _strike(rank, mouth)
        self.rung += 1
        return Ring(self, self.rung)

    def listen(self, number: int) -> None:
        """Wait until all others have rung so often."""
        for rank, ear in self.ears.items():
            while self.heard[rank] < number:
                self.heard[rank] += self._hear(rank, ear)

    def _hear(self, rank: int, ear: int) -> int:
        wait = select.poll()
        wait.register(ear, select.POLLIN)
        if not wait.poll(min(1000 * self.timeout.total_seconds(), _MOST)):
            raise RuntimeError(f"process {rank} was not ready within {self.timeout}")
        said = os.read(ear, 4096)
        if not said:
            raise RuntimeError(_ENDED.format(rank))
        return len(said)

    def close(self) -> None:
        """Let go of the pipes."""
        for end in (*self.ears.values(), *self.mouths.values()):
            os.close(end)
        self.ears, self.mouths = {}, {}


def _strike(rank: int, mouth: int) -> None:
    try:
        os.write(mouth, b"\a")
    except BrokenPipeError:
        raise RuntimeError(_ENDED.format(rank)) from None


class Ring(NamedTuple):
    """A ring, and those of the others for the same thing."""

    bell: Bell
    number: int

    def wait(self) -> None:
        """Until the others have rung, too."""
        self.bell.listen(self.number)


def hang(group: Any = None, timeout: timedelta = default_pg_timeout) -> Bell | None:
    """A bell between processes that see each other's files; in all of them None, where one does not."""
    rank, pipes = dist.get_rank(group), dict[int, tuple[int, int]]()
    others = [other for other in range(dist.get_world_size(group)) if other != rank]
    with suppress(OSError):
        for other in others:
            pipes[other] = os.pipe()
    paths = {other: f"/proc/{os.getpid()}/fd/{end}" for other, (_, end) in pipes.items()}
    offers: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(offers, paths, group=group)
    bell = Bell({other: end for other, (end, _) in pipes.items()}, {}, timeout)
    with suppress(OSError, KeyError):
        for other in pipes:
            bell.mouths[other] = os.open(offers[other][rank], os.O_WRONLY)
    whole: list[Any] = [None] * len(offers)
    dist.all_gather_object(whole, len(bell.mouths) == len(others), group=group)
    for _, end in pipes.values():
        os.close(end)  # from now on an ear hears when its process has ended
    if not all(whole):
        bell.close()
    return bell if all(whole) else None
