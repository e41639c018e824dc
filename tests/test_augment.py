"""Augmentation of whole batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_ff import RandomShift


def test_every_image_is_moved_as_a_whole_and_all_shifts_occur() -> None:
    torch.manual_seed(0)
    x = torch.rand(400, 2, 5, 6) + 1
    moved = RandomShift(1)(x)
    seen = set()
    for image, result in zip(x.numpy(), moved.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
        fits = [(i, j) for i in range(3) for j in range(3) if np.array_equal(padded[:, i : i + 5, j : j + 6], result)]
        assert len(fits) == 1
        seen.update(fits)
    assert len(seen) == 9


def test_draws_follow_the_global_generator() -> None:
    x = torch.rand(20, 1, 4, 4)
    torch.manual_seed(3)
    first = RandomShift(2)(x)
    torch.manual_seed(3)
    assert torch.equal(first, RandomShift(2)(x))
    assert not torch.equal(first, RandomShift(2)(x))


def test_pixels_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="pixels=0: must be at least 1"):
        RandomShift(0)
