"""Work on memory that processes share, done once for all of them."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any

import torch.distributed as dist
from torch.distributed.constants import default_pg_timeout

try:
    import fcntl
except ImportError:  # on Windows, where no memory is shared
    fcntl = None  # type: ignore[assignment]

_SIZE = 8  # bytes of a number in the file
_PAUSE = 1e-4  # seconds between two looks at a lock, which is short against most means


class Desk:
    """Where processes of one machine note what is done.

    Args:
        file: A file that all of them have open.
        timeout: How long one waits for another that does the work.
    """

    def __init__(self, file: int, timeout: timedelta) -> None:
        self.file, self.timeout = file, timeout
        self._places = count()

    def once(self) -> Once:
        """For one kind of work; to be asked for by all processes, in the same order."""
        return Once(self.file, _SIZE * next(self._places), self.timeout)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.file)


class Once:
    """Work that comes again and again, and is done by the first process that needs it.

    Args:
        file: A file that all processes have open.
        place: Where the last turn that was begun or done is noted there.
        timeout: How long one waits for another that does the work.
    """

    def __init__(self, file: int, place: int, timeout: timedelta = default_pg_timeout) -> None:
        self.file, self.place, self.timeout = file, place, timeout

    @contextmanager
    def first(self, turn: int) -> Iterator[bool]:
        """Whether this process is to do it, this turn; turns count upwards from 1. Waits while another one does it.

        Raises:
            RuntimeError: the process that has begun it did not come to its end, or not in time.
        """
        self._lock()
        try:
            noted = int.from_bytes(os.pread(self.file, _SIZE, self.place), "little")
            if noted % 2:
                raise RuntimeError("a process, which this one shares memory with, has failed in the middle of its work")
            needed = noted < 2 * turn
            if needed:
                self._note(2 * turn - 1)
            yield needed
            if needed:
                self._note(2 * turn)
        finally:
            fcntl.lockf(self.file, fcntl.LOCK_UN, _SIZE, self.place)

    def _lock(self) -> None:
        """Take the lock, which the system opens when its process ends."""
        until = time.monotonic() + self.timeout.total_seconds()
        while True:
            try:
                return fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, _SIZE, self.place)
            except (BlockingIOError, PermissionError):  # another one has it
                if time.monotonic() > until:
                    raise RuntimeError(f"another process was not ready within {self.timeout}") from None
            time.sleep(_PAUSE)

    def _note(self, number: int) -> None:
        os.pwrite(self.file, number.to_bytes(_SIZE, "little"), self.place)


def desk(group: Any = None, timeout: timedelta = default_pg_timeout) -> Desk | None:
    """A desk for processes of a group; in all of them None, where one does not see the first one's file."""
    name, own, file = uuid.uuid4().hex, -1, -1
    if dist.get_rank(group) == 0:
        with suppress(OSError, AttributeError):
            own = os.memfd_create(name)
    offers: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(offers, (f"/proc/{os.getpid()}/fd/{own}", name), group=group)
    with suppress(OSError, ValueError):
        file = os.open(checked(*offers[0]), os.O_RDWR)
    seen: list[Any] = [None] * len(offers)
    dist.all_gather_object(seen, file >= 0, group=group)
    if own >= 0:
        os.close(own)
    if not all(seen) and file >= 0:
        os.close(file)
    return Desk(file, timeout) if all(seen) else None


def checked(path: str, name: str) -> str:
    """A path, if it is that of the memory so named: it may name something else here."""
    if name not in os.readlink(path):
        raise ValueError(f"{path} is not {name}")
    return path
