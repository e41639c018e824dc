"""Activations kept by sample, in memory or, above a limit, in a file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from weakref import finalize

import torch
from torch import Tensor

from lightning_ff.blocks.local_block import Activation


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
