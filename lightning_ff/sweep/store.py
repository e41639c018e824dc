"""Outputs of frozen blocks, kept by sample, in memory or, above a limit, in a file.

Shapes: N samples; G rows of each (a positive and its negatives; one in class mode).
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ff.blocks.local_block import Activation
from lightning_ff.sweep.schedule import Windows


class _Key(NamedTuple):
    """Block that kept outputs are the input of, and what they depend on: frozen blocks and version of the inputs."""

    block: int
    fixed_since: int
    version: int


class KeptOutputs:
    """Input of the first block that learns, by sample; dropped when a block before it has learned.

    Args:
        windows: In which epochs blocks learn.
        memory: Limit in MiB; larger outputs are kept in a temporary file.

    Attributes:
        batches: Number of batches per epoch, for which memory is reserved.
    """

    batches: float = 1

    def __init__(self, windows: Windows, memory: float) -> None:
        self.windows = windows
        self.memory = memory
        self._kept: tuple[_Key, OutputCache] | None = None
        self._earlier: tuple[_Key, OutputCache] | None = None

    def get(self, index: Tensor, epoch: int, version: int) -> tuple[int, Activation] | None:
        """Index of a block and its input `(G N, ...)` for samples `(N,)`; None if one of the samples is missing.

        It is the first block that learns, or an earlier one whose kept input is still valid.
        """
        if not self.windows.first(epoch):
            return None
        self._update_caches(len(index), epoch, version)
        for entry in (self._kept, self._earlier):
            if entry is not None and (rows := entry[1].get(index)) is not None:
                return entry[0].block, _unstack(rows)
        return None

    def put(self, index: Tensor, x: Activation, epoch: int, version: int) -> None:
        """Keep the input `(G N, ...)` of the first block that learns for samples `(N,)`."""
        self._update_caches(len(index), epoch, version)
        assert self._kept is not None
        self._kept[1].put(index, _stack(x, len(index)))

    def _update_caches(self, samples: int, epoch: int, version: int) -> None:
        """Start a new cache if the block or the inputs have changed; a valid earlier one is used until it is full."""
        first = self.windows.first(epoch)
        key = _Key(first, self.windows.fixed_since(first, epoch), version)
        if self._kept is not None and self._kept[0] == key:
            return
        if self._earlier is not None:
            self._earlier[1].close()
        self._earlier, self._kept = self._kept, None
        if self._earlier is not None and not self._is_valid(self._earlier[0], key, epoch):
            self._earlier[1].close()
            self._earlier = None
        batches = int(self.batches) if isfinite(self.batches) else 1
        self._kept = key, OutputCache(samples * batches, self.memory)

    def _is_valid(self, old: _Key, new: _Key, epoch: int) -> bool:
        """Whether the outputs kept for an earlier block are still valid."""
        fixed = self.windows.fixed_since(old.block, epoch) == old.fixed_since
        return old.block < new.block and old.version == new.version and fixed

    def close(self) -> None:
        """Free all kept outputs."""
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
    """Outputs of a frozen part of a network by sample, filled batch by batch.

    Args:
        samples: Number of samples to reserve memory for; the cache grows if there are more.
        memory: Limit in MiB; a larger cache is kept in temporary files without a name, which end with the process.

    Attributes:
        on_disk: Whether the cache is kept in files.
    """

    def __init__(self, samples: int, memory: float) -> None:
        self._capacity = samples
        self._memory = memory
        self._position = torch.full((samples,), -1)
        self._filled = 0
        self._stores: list[Tensor] = []
        self._tuple = False
        self.on_disk = False

    def __len__(self) -> int:
        return self._filled

    def get(self, index: Tensor) -> Activation | None:
        """Outputs `(N, G, ...)` of the samples `(N,)`, as given to `put`; None if one of them is missing."""
        positions = self._positions(index.cpu())
        if not self._stores or bool((positions < 0).any()):
            return None
        rows = [store.index_select(0, positions.to(store.device)) for store in self._stores]
        rows = [row.to(index.device) for row in rows]
        return tuple(rows) if self._tuple else rows[0]

    def put(self, index: Tensor, rows: Activation) -> None:
        """Keep outputs `(N, G, ...)` of samples `(N,)`; replaces those already kept."""
        entries = (rows,) if isinstance(rows, Tensor) else rows
        self._tuple = not isinstance(rows, Tensor)
        samples = index.cpu()
        positions = self._positions(samples)
        new = positions < 0
        positions[new] = torch.arange(self._filled, self._filled + int(new.sum()))
        self._position[samples] = positions
        self._filled += int(new.sum())
        if not self._stores or self._filled > self._capacity:
            self._grow(entries)
        for store, entry in zip(self._stores, entries, strict=True):
            store.index_copy_(0, positions.to(store.device), entry.detach().to(store.device))

    def close(self) -> None:
        """Free the memory, and remove the file."""
        self._stores, self._filled = [], 0
        self._position.fill_(-1)
        self.on_disk = False

    def _positions(self, index: Tensor) -> Tensor:
        """Positions of samples in the cache, -1 for samples that are not kept."""
        highest = int(index.max()) + 1
        if highest > len(self._position):
            self._position = torch.cat(
                (self._position, torch.full((max(highest, 2 * len(self._position)) - len(self._position),), -1))
            )
        return self._position[index]

    def _grow(self, like: tuple[Tensor, ...]) -> None:
        """Reserve memory for all samples; doubles it if there are more than expected."""
        old, self._capacity = self._stores, max(self._capacity, 2 * self._capacity if self._stores else 0, self._filled)
        size = sum(self._capacity * entry[0].numel() * entry.element_size() for entry in like)
        self.on_disk |= size > self._memory * 2**20
        self._stores = [self._new(entry) for entry in like]
        for store, before in zip(self._stores, old, strict=False):
            store[: len(before)] = before.to(store.device)

    def _new(self, like: Tensor) -> Tensor:
        shape = (self._capacity, *like.shape[1:])
        if not self.on_disk:
            return torch.empty(shape, dtype=like.dtype, device=like.device)
        handle, path = tempfile.mkstemp(prefix="lightning-ff-")
        os.close(handle)
        try:
            return torch.from_file(path, shared=True, size=torch.Size(shape).numel(), dtype=like.dtype).view(shape)
        finally:
            with suppress(PermissionError):  # Windows keeps a file that is mapped
                os.unlink(path)
