"""Outputs of frozen blocks, kept by sample, in memory or, above a limit, in a file.

Shapes: N samples; G rows of each (a positive and its negatives; one in class mode).
"""

from __future__ import annotations

import shutil
import tempfile
from math import isfinite
from pathlib import Path
from typing import NamedTuple
from weakref import finalize

import torch
from torch import Tensor

from lightning_ff.blocks.local_block import Activation
from lightning_ff.sweep.schedule import Windows


class _Key(NamedTuple):
    """What kept outputs are the input of, and for what they hold: these frozen blocks, this version of the inputs."""

    block: int
    fixed_since: int
    version: int


class KeptOutputs:
    """Input of the first block that learns, by sample; it begins anew when a block before it has learned.

    Args:
        windows: Which blocks learn when.
        memory: Bound in MiB on what is kept in memory; more goes to a temporary file.

    Attributes:
        batches: Batches of an epoch, by which memory is reserved.
    """

    batches: float = 1

    def __init__(self, windows: Windows, memory: float) -> None:
        self.windows = windows
        self.memory = memory
        self._kept: tuple[_Key, OutputCache] | None = None
        self._earlier: tuple[_Key, OutputCache] | None = None

    def get(self, index: Tensor, epoch: int, version: int) -> tuple[int, Activation] | None:
        """Index of a block and its input `(G N, ...)` for samples `(N,)`; None where one of them is missing.

        It is the first block that learns, or an earlier one whose input is still known.
        """
        if not self.windows.first(epoch):
            return None
        self._open(len(index), epoch, version)
        for entry in (self._kept, self._earlier):
            if entry is not None and (rows := entry[1].get(index)) is not None:
                return entry[0].block, _unstack(rows)
        return None

    def put(self, index: Tensor, x: Activation) -> None:
        """Keep the input `(G N, ...)` of the first block that learns for samples `(N,)`."""
        assert self._kept is not None
        self._kept[1].put(index, _stack(x, len(index)))

    def _open(self, samples: int, epoch: int, version: int) -> None:
        """Make room where what is kept is of other blocks or inputs; what still holds serves until all have come."""
        first = self.windows.first(epoch)
        key = _Key(first, self.windows.fixed_since(first, epoch), version)
        if self._kept is not None and self._kept[0] == key:
            return
        if self._earlier is not None:
            self._earlier[1].close()
        self._earlier, self._kept = self._kept, None
        if self._earlier is not None and not self._holds(self._earlier[0], key, epoch):
            self._earlier[1].close()
            self._earlier = None
        batches = int(self.batches) if isfinite(self.batches) else 1
        self._kept = key, OutputCache(samples * batches, self.memory)

    def _holds(self, old: _Key, new: _Key, epoch: int) -> bool:
        """Whether what was kept for an earlier block is still what it would be."""
        fixed = self.windows.fixed_since(old.block, epoch) == old.fixed_since
        return old.block < new.block and old.version == new.version and fixed

    def close(self) -> None:
        """Free what is kept."""
        for entry in (self._kept, self._earlier):
            if entry is not None:
                entry[1].close()
        self._kept = self._earlier = None


def _stack(x: Activation, samples: int) -> Activation:
    """Rows by sample `(N, G, ...)` of G groups of N rows."""
    if isinstance(x, Tensor):
        return x.view(-1, samples, *x.shape[1:]).transpose(0, 1)
    return tuple(entry.view(-1, samples, *entry.shape[1:]).transpose(0, 1) for entry in x)


def _unstack(rows: Activation) -> Activation:
    if isinstance(rows, Tensor):
        return rows.transpose(0, 1).flatten(0, 1)
    return tuple(entry.transpose(0, 1).flatten(0, 1) for entry in rows)


class OutputCache:
    """What a frozen part of a network gives for each sample, filled as samples come by.

    Args:
        samples: Number of samples to make room for; more may come.
        memory: Bound in MiB; a cache that would be larger lies in a temporary file.
    """

    def __init__(self, samples: int, memory: float) -> None:
        self._room = samples
        self._memory = memory
        self._slot = torch.full((samples,), -1)
        self._filled = 0
        self._stores: list[Tensor] = []
        self._folder: Path | None = None
        self._files = 0
        self._tuple = False

    def __len__(self) -> int:
        return self._filled

    @property
    def on_disk(self) -> bool:
        """Whether it lies in a file."""
        return self._folder is not None

    def get(self, index: Tensor) -> Activation | None:
        """Rows of the samples `(N,)` as `put` got them, `(N, G, ...)`; None if one of them is missing."""
        where = self._where(index.cpu())
        if not self._stores or bool((where < 0).any()):
            return None
        rows = [store.index_select(0, where.to(store.device)) for store in self._stores]
        rows = [row.to(index.device) for row in rows]
        return tuple(rows) if self._tuple else rows[0]

    def put(self, index: Tensor, rows: Activation) -> None:
        """Keep rows `(N, G, ...)` of samples `(N,)`, those known already anew."""
        entries = (rows,) if isinstance(rows, Tensor) else rows
        self._tuple = not isinstance(rows, Tensor)
        place = index.cpu()
        where = self._where(place)
        fresh = where < 0
        where[fresh] = torch.arange(self._filled, self._filled + int(fresh.sum()))
        self._slot[place] = where
        self._filled += int(fresh.sum())
        if not self._stores or self._filled > self._room:
            self._grow(entries)
        for store, entry in zip(self._stores, entries, strict=True):
            store.index_copy_(0, where.to(store.device), entry.detach().to(store.device))

    def close(self) -> None:
        """Free the memory, and remove the file."""
        self._stores, self._filled = [], 0
        self._slot.fill_(-1)
        if self._folder is not None:
            self._removed()
            self._folder = None

    def _where(self, index: Tensor) -> Tensor:
        highest = int(index.max()) + 1
        if highest > len(self._slot):
            self._slot = torch.cat((self._slot, torch.full((max(highest, 2 * len(self._slot)) - len(self._slot),), -1)))
        return self._slot[index]

    def _grow(self, like: tuple[Tensor, ...]) -> None:
        """Room for all samples, twice as much where more came than were announced."""
        old, self._room = self._stores, max(self._room, 2 * self._room if self._stores else 0, self._filled)
        size = sum(self._room * entry[0].numel() * entry.element_size() for entry in like)
        if self._folder is None and size > self._memory * 2**20:
            self._folder = Path(tempfile.mkdtemp(prefix="lightning-ff-"))
            self._removed = finalize(self, shutil.rmtree, self._folder, True)  # however the process ends
        self._stores = [self._new(entry) for entry in like]
        for store, before in zip(self._stores, old, strict=False):
            store[: len(before)] = before.to(store.device)
        if self._folder is not None:
            for path in self._folder.iterdir():
                if int(path.name) <= self._files - len(like):
                    path.unlink()

    def _new(self, like: Tensor) -> Tensor:
        shape = (self._room, *like.shape[1:])
        if self._folder is None:
            return torch.empty(shape, dtype=like.dtype, device=like.device)
        self._files += 1
        path = self._folder / str(self._files)
        size = torch.Size(shape).numel()
        return torch.from_file(str(path), shared=True, size=size, dtype=like.dtype).view(shape)
