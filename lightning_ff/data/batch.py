"""What a loader of this package yields."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """A batch of images, their labels and where they lie in the stored data.

    Attributes:
        image: Scaled images, float32, shape ``(N, *input_shape)``.
        label: Class numbers, int64, shape ``(N,)``.
        index: Positions of the samples in their split as it was read, int64, shape ``(N,)``. A sample keeps its index
            whatever the seed, the validation split, the epoch and the number of processes.
    """

    image: Tensor
    label: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
