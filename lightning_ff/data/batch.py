"""The batch that loaders of this package return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A batch of images, their labels and their indices in the stored data.

    Attributes:
        image: Scaled images, float32, shape ``(N, *input_shape)``.
        label: Class numbers, int64, shape ``(N,)``.
        index: Indices of the samples in their split as it was read, int64, shape ``(N,)``. The index of a sample does
            not depend on the seed, the validation split, the epoch and the number of processes.
    """

    image: Tensor
    label: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
