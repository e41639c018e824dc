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

    def get(
        self, index: Tensor, epoch: int, version: int, marks: Tensor | None = None
    ) -> tuple[int, Activation] | None:
        """Index of a block and its input `(G N, ...)` for samples `(N,)`; None if one of the samples is missing.

        It is the first block that learns, or an earlier one whose kept input is still valid.

        Raises:
            ValueError: the output kept by an index is of another sample, by `marks`, numbers of each `(N, M)`.
        """
        if not self.windows.first(epoch):
            return None
        self._update_caches(len(index), epoch, version)
        for entry in (self._kept, self._earlier):
            if entry is not None and (rows := entry[1].get(index, marks)) is not None:
                return entry[0].block, _unstack(rows)
        return None

    def put(self, index: Tensor, x: Activation, epoch: int, version: int, marks: Tensor | None = None) -> None:
        """Keep the input `(G N, ...)` of the first block that learns for samples `(N,)`."""
        self._update_caches(len(index), epoch, version)
        assert self._kept is not None
        self._kept[1].put(index, _stack(x, len(index)), marks)

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


def marks_of(image: Tensor | None, label: Tensor | None) -> Tensor | None:
    """Numbers by which samples are told apart `(N, 3)`: the label and two sums over the image, NaN if not given."""
    if image is None and label is None:
        return None
    n = len(image if label is None else label)  # type: ignore[arg-type]
    marks = torch.full((n, 3), torch.nan, dtype=torch.float64)
    if label is not None:
        marks[:, 0] = label
    if image is not None:
        flat = image.flatten(1).double()
        weights = torch.arange(flat.shape[1], device=flat.device, dtype=flat.dtype).cos()
        marks[:, 1:] = torch.stack((flat.sum(1), flat @ weights), 1)
    return marks


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
        self._index = torch.empty(0, dtype=torch.int64)  # samples in ascending order, and where each is kept
        self._place = torch.empty(0, dtype=torch.int64)
        self._stores: list[Tensor] = []
        self._marks: Tensor | None = None
        self._tuple = False
        self.on_disk = False

    def __len__(self) -> int:
        return len(self._index)

    def get(self, index: Tensor, marks: Tensor | None = None) -> Activation | None:
        """Outputs `(N, G, ...)` of the samples `(N,)`, as given to `put`; None if one of them is missing."""
        samples = index.cpu()
        places = self._places(samples)
        if not self._stores or bool((places < 0).any()):
            return None
        self._check(samples, places, marks)
        rows = [store.index_select(0, places.to(store.device)) for store in self._stores]
        rows = [row.to(index.device) for row in rows]
        return tuple(rows) if self._tuple else rows[0]

    def put(self, index: Tensor, rows: Activation, marks: Tensor | None = None) -> None:
        """Keep outputs `(N, G, ...)` of samples `(N,)`; replaces those already kept."""
        entries = (rows,) if isinstance(rows, Tensor) else rows
        self._tuple = not isinstance(rows, Tensor)
        samples = index.cpu()
        known = self._places(samples)
        self._check(samples, known, marks)
        self._insert(samples[known < 0])
        places = self._places(samples)
        if not self._stores or len(self) > self._capacity:
            self._grow(entries)
        if marks is not None:
            if self._marks is None or len(self._marks) < self._capacity:
                old, self._marks = self._marks, marks.new_zeros(self._capacity, marks.shape[1])
                self._marks[: 0 if old is None else len(old)] = 0 if old is None else old
            self._marks[places] = marks
            self._check(samples, places, marks)  # an index may be twice in a batch
        for store, entry in zip(self._stores, entries, strict=True):
            store.index_copy_(0, places.to(store.device), entry.detach().to(store.device))

    def close(self) -> None:
        """Free the memory, and the files."""
        self._stores, self._marks, self.on_disk = [], None, False
        self._index, self._place = self._index[:0], self._place[:0]

    def _places(self, samples: Tensor) -> Tensor:
        """Where samples are kept, -1 for those that are not."""
        if not len(self):
            return torch.full_like(samples, -1)
        at = torch.searchsorted(self._index, samples).clamp(max=len(self) - 1)
        return torch.where(self._index[at] == samples, self._place[at], -1)

    def _insert(self, samples: Tensor) -> None:
        """Give each of the samples, none of which is kept, the next free place."""
        new = samples.unique()
        places = len(self) + torch.arange(len(new))
        order = torch.cat((self._index, new)).argsort()
        self._index = torch.cat((self._index, new))[order]
        self._place = torch.cat((self._place, places))[order]

    def _check(self, samples: Tensor, places: Tensor, marks: Tensor | None) -> None:
        """Check that the outputs at these places are of the same samples."""
        if marks is None or self._marks is None:
            return
        kept = places >= 0
        old, new = self._marks[places[kept]], marks[kept]
        same = (torch.isclose(old, new, rtol=1e-9, atol=1e-9) | old.isnan() | new.isnan()).all(1)
        if not bool(same.all()):
            number = int(samples[kept][~same][0])
            raise ValueError(
                f"index={number} is that of two different samples: the third entry of a batch is the position of the "
                "sample in its data set; leave it out if it is something else, or give the schedule cache=False"
            )

    def _grow(self, like: tuple[Tensor, ...]) -> None:
        """Reserve memory for all samples; doubles it if there are more than expected."""
        old, self._capacity = self._stores, max(self._capacity, 2 * self._capacity if self._stores else 0, len(self))
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
