"""An in-memory loader that draws whole batches and can resume in the middle of an epoch.

Shapes: S stored samples, n of them drawn in an epoch over all processes, N samples in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import SequentialSampler
from typing_extensions import override

from lightning_ff.data.batch import Batch
from lightning_ff.validate import check_flag, check_int, check_type


def require(holds: bool, argument: str, value: object, remedy: str) -> None:
    """Raise a ``ValueError`` that names argument, value and remedy unless ``holds``."""
    if not holds:
        raise ValueError(f"{argument}={value!r} {remedy}")


def generator(*keys: int) -> torch.Generator:
    """Return a generator that depends on ``keys`` alone, without a use of the global one.

    >>> torch.randperm(5, generator=generator(0, 3)).equal(torch.randperm(5, generator=generator(0, 3)))
    True
    """
    mixed = np.random.SeedSequence(keys).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))


class BatchLoader(Iterable[Batch]):
    """Draws batches from tensors in memory: a few tensor operations per batch, no Python per sample.

    The order of an epoch depends on ``(seed, epoch)`` alone. Every process draws each ``world_size``-th sample of it,
    so batch ``b`` of all processes together is batch ``b`` of one process with a ``world_size`` times larger
    ``batch_size``. Every pass starts at the first batch of the epoch set by :meth:`set_epoch` (called by Lightning);
    only the first pass after :meth:`load_state_dict` starts at the saved batch.

    Args:
        images: Stored images, uint8 or float, shape ``(S, *input_shape)``.
        labels: Their class numbers, int64, shape ``(S,)``.
        index: Indices of the stored samples to draw, int64, shape ``(n,)``; ``None`` means all. They are also the
            ``index`` of the batches, so a split needs no copy of its images.
        batch_size: Samples of a batch on this process.
        shuffle: Draw in a new random order each epoch.
        seed: Seed of the order.
        drop_last: Leave out a last batch smaller than ``batch_size``.
        scale: Function from stored images to float32; may work in place. ``None`` only casts.
        rank: Rank of this process.
        world_size: Number of processes that split the samples.
        even: Give every process the same number of samples by leaving out the last ``n % world_size`` of the order;
            otherwise every sample is drawn once and the last processes may have one fewer. ``None`` is ``shuffle``.

    >>> loader = BatchLoader(torch.arange(5.0).view(5, 1), torch.zeros(5, dtype=torch.int64), batch_size=2)
    >>> [batch.index.tolist() for batch in loader]
    [[0, 1], [2, 3], [4]]
    """

    batch_sampler = None  # Lightning reads it from every loader with a sampler

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        index: Tensor | None = None,
        batch_size: int = 128,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        scale: Callable[[Tensor], Tensor] | None = None,
        rank: int = 0,
        world_size: int = 1,
        even: bool | None = None,
    ) -> None:
        for name, tensor in (("images", images), ("labels", labels), ("index", index)):
            if not (tensor is None and name == "index"):
                check_type(name, tensor, Tensor, "give a tensor")
        for name, flag in (("shuffle", shuffle), ("drop_last", drop_last), ("even", even)):
            if not (flag is None and name == "even"):
                check_flag(name, flag)
        self.images, self.labels = images, labels
        self.index = torch.arange(len(images)) if index is None else index
        self.batch_size = batch_size
        self.shuffle, self.seed = shuffle, seed
        self.drop_last = drop_last
        self.scale = scale or Tensor.float
        self.rank, self.world_size = rank, world_size
        self.even = shuffle if even is None else even
        self._epoch = 0
        self._position = 0  # number of batches of this epoch that were yielded
        self._resuming = False
        self._check()

    def _check(self) -> None:
        for name in ("batch_size", "seed", "rank", "world_size"):
            check_int(name, getattr(self, name))
        require(self.batch_size >= 1, "batch_size", self.batch_size, "must be at least 1")
        require(self.seed >= 0, "seed", self.seed, "must be 0 or larger")
        require(0 <= self.rank < self.world_size, "rank", self.rank, f"must be in 0..{self.world_size - 1}")
        images, labels = len(self.images), len(self.labels)
        require(images == labels, "labels", f"{labels} labels", f"must be {images}, one an image")
        for position in (int(self.index.min()), int(self.index.max())) if len(self.index) else ():
            require(0 <= position < images, "index", position, f"must be in 0..{images - 1}, the stored images")
        if self.even:
            require(self._samples() >= 1, "world_size", self.world_size, f"is too many for {len(self.index)} images")
        if self.drop_last:
            remedy = f"is more than the {self._samples()} images of a process: lower it or set drop_last=False"
            require(len(self) >= 1, "batch_size", self.batch_size, remedy)

    def _samples(self) -> int:
        """Return the number of samples of this process in an epoch."""
        n = len(self.index)
        return n // self.world_size if self.even else len(range(self.rank, n, self.world_size))

    @override
    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that nothing runs before the first batch: Lightning calls iter() on a loader more than once,
        # before and after it loads the state, and sets the epoch after that.
        first = self._position if self._resuming else 0
        self._resuming = False
        rows = self._order()
        for number in range(first, len(self)):
            # set before the yield: a loader of known length is not resumed after its last batch
            self._position = number + 1
            yield self._draw(rows[number * self.batch_size : (number + 1) * self.batch_size])

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch on this process."""
        samples = self._samples()
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def _order(self) -> Tensor:
        """Return the indices of the stored samples that this process draws in the current epoch, in order."""
        index, n = self.index, len(self.index)
        if self.shuffle:
            index = index[torch.randperm(n, generator=generator(self.seed, self._epoch))]
        return index[: n - n % self.world_size if self.even else n][self.rank :: self.world_size]

    def _draw(self, rows: Tensor) -> Batch:
        # index_select is 3 to 5 times faster than indexing here, and returns new memory, which can be scaled in place
        image = self.scale(self.images.index_select(0, rows))
        return Batch(image, self.labels.index_select(0, rows), rows.clone())

    @property
    def sampler(self) -> BatchLoader | _InOrder:
        """The object whose ``set_epoch`` Lightning calls before each epoch."""
        return self if self.shuffle else _InOrder(self)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order; no effect if it is the current one."""
        if epoch != self._epoch:
            self._epoch, self._position, self._resuming = epoch, 0, False

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, the number of batches drawn in it, and what their order depends on."""
        return {"epoch": self._epoch, "position": self._position, **self._identity()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next pass continue at the batch of ``state_dict``.

        Raises:
            ValueError: it is of other data, another global batch size or another order.
        """
        for name, ours in self._identity().items():
            theirs = state_dict.get(name)
            if theirs != ours:
                raise ValueError(
                    f"Cannot resume in the middle of an epoch: the checkpoint has {name}={theirs}, this loader has"
                    f" {name}={ours}. Resume with the same data, batch size, seed and number of processes"
                    " (batch_size here is that of all processes together), or load only the weights."
                )
        self._epoch, self._position = state_dict["epoch"], state_dict["position"]
        self._resuming = True

    def _identity(self) -> dict[str, int | None]:
        """Return everything that the samples before a batch depend on."""
        return {
            "samples": len(self.index),
            "batch_size": int(self.batch_size * self.world_size),  # NumPy's would not load weights-only
            "seed": int(self.seed) if self.shuffle else None,
        }


class _InOrder(SequentialSampler):
    """Shows Lightning by its type that a loader does not shuffle, and passes the epoch to the loader."""

    def __init__(self, loader: BatchLoader) -> None:
        super().__init__(loader.index)
        self.set_epoch = loader.set_epoch
