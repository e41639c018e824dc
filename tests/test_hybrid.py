"""Hybrid images: masks against a blur written in numpy, and the combined images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ff.hashing import hash_bits
from lightning_ff.labels import LabelEncoding, PixelOverlay, Unlabelled
from lightning_ff.negatives import HybridImages, blurred_masks


def noise(index: int, height: int, width: int, seed: int, epoch: int) -> np.ndarray:
    """The random bits of one mask: 62 of every hashed word, the lowest first, row by row."""
    words = -(-height * width // 62)
    hashed = hash_bits(torch.arange(index * words, (index + 1) * words), seed, epoch).tolist()
    bits = [word >> k & 1 for word in hashed for k in range(62)]
    return np.array(bits[: height * width], dtype=np.float64).reshape(height, width)


def blurred(image: np.ndarray, blurs: int) -> np.ndarray:
    """[1/4, 1/2, 1/4] again and again in both directions on a wide margin, divided by the share of it inside."""

    def blur(values: np.ndarray) -> np.ndarray:
        for _ in range(blurs):
            for axis in (0, 1):
                values = np.roll(values, 1, axis) / 4 + values / 2 + np.roll(values, -1, axis) / 4
        return values[blurs:-blurs, blurs:-blurs]

    return blur(np.pad(image, blurs)) / blur(np.pad(np.ones_like(image), blurs))


@pytest.mark.parametrize("blurs", [1, 3, 6, 80])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (5, 13), (1, 7)], ids=str)
def test_masks_are_those_of_numpy(blurs: int, size: tuple[int, int]) -> None:
    index = torch.tensor([3, 0, 59_999])
    masks = blurred_masks(index, *size, blurs, seed=2, epoch=5)
    assert masks.shape == (3, *size)
    assert masks.dtype == torch.bool
    for mask, number in zip(masks, index.tolist(), strict=True):
        expected = blurred(noise(number, *size, 2, 5), blurs)
        clear = np.abs(expected - 0.5) > 1e-6
        assert clear.mean() > 0.5
        assert np.array_equal(mask.numpy()[clear], (expected > 0.5)[clear])


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What Lightning's true half precision does around a training step."""
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_masks_do_not_depend_on_the_precision_of_the_training() -> None:
    index = torch.arange(200)
    expected = blurred_masks(index, 28, 28, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(blurred_masks(index, 28, 28, 6), expected)
    with default_dtype(torch.bfloat16):
        assert torch.equal(blurred_masks(index, 28, 28, 6), expected)


def neighbours(masks: Tensor) -> float:
    left, right = masks[..., :-1].flatten().float(), masks[..., 1:].flatten().float()
    return float(torch.corrcoef(torch.stack((left, right)))[0, 1])


def test_masks_are_balanced_and_their_regions_grow_with_the_blurs() -> None:
    index = torch.arange(500)
    bits = torch.rand(500, 28, 28, generator=torch.Generator().manual_seed(0)) > 0.5
    assert abs(neighbours(bits)) < 0.02
    correlations = []
    for blurs in (2, 6, 12):
        masks = blurred_masks(index, 28, 28, blurs)
        assert 0.45 < float(masks.float().mean()) < 0.55
        correlations.append(neighbours(masks))
    assert correlations == sorted(correlations)
    assert correlations[0] > 0.5
    assert correlations[1] > 0.7


def test_every_image_epoch_and_seed_has_its_own_mask() -> None:
    masks = [blurred_masks(torch.arange(20), 8, 8, 3, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len(torch.cat(masks).flatten(1).unique(dim=0)) == 60
    assert torch.equal(blurred_masks(torch.tensor([7, 3]), 8, 8, 3), masks[0][[7, 3]])


def learner(labels: LabelEncoding | None = None, epoch: int = 0, batch_number: int = 0) -> Any:
    labels = labels or Unlabelled()
    labels.build(10, (3, 8, 8))
    return SimpleNamespace(labels=labels, num_classes=10, epoch=epoch, batch=batch_number)


def images(n: int) -> Tensor:
    """Every pixel of image i is i, plus an offset by channel and position."""
    return torch.arange(n).view(n, 1, 1, 1) + torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) / 2


def partners(hybrids: Tensor) -> list[set[int]]:
    """Images that every hybrid is made of."""
    return [set(hybrid.floor().unique().int().tolist()) for hybrid in hybrids]


def test_every_pixel_comes_from_one_of_two_images_by_the_mask() -> None:
    x, index = images(9), torch.arange(9) + 40
    hybrids = HybridImages(seed=1, blurs=2)(x, torch.zeros(9, dtype=torch.int64), index, learner(epoch=3))
    masks = blurred_masks(index, 8, 8, 2, seed=1, epoch=3)
    for row in range(9):
        (partner,) = partners(hybrids)[row] - {row}
        assert torch.equal(hybrids[row], torch.where(masks[row], x[row], x[partner]))  # in all channels alike


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_partner_is_never_the_image_itself(n: int) -> None:
    x, index = images(n), torch.arange(n)
    distances = set()
    for batch_number in range(60):
        made = learner(epoch=batch_number % 7, batch_number=batch_number)
        found = partners(HybridImages(blurs=1)(x, index, index, made))
        assert all(len(pair) == 2 for pair in found)
        (distance,) = {(row - (pair - {row}).pop()) % n for row, pair in enumerate(found)}
        distances.add(distance)
    assert distances == set(range(1, n))


def test_a_batch_of_one_is_joined_with_its_mirror_image() -> None:
    x = torch.rand(1, 3, 8, 8)
    index = torch.tensor([4])
    hybrid = HybridImages(blurs=1)(x, index, index, learner())
    mask = blurred_masks(index, 8, 8, 1).unsqueeze(1)
    assert torch.equal(hybrid, torch.where(mask, x, x.flip(3)))
    assert not torch.equal(hybrid, x)


def test_the_class_of_the_first_image_is_written_where_labels_are() -> None:
    x, y, index = images(6), torch.tensor([1, 4, 0, 9, 3, 3]), torch.arange(6)
    plain = HybridImages()(x, y, index, learner())
    made = learner(PixelOverlay(on_value=7.0))
    labelled = HybridImages()(x, y, index, made)
    assert torch.equal(labelled, made.labels(plain, y))
    assert labelled[:, 0].flatten(1)[:, :10].argmax(1).tolist() == y.tolist()
    assert torch.equal(HybridImages().positives(x, y, made), made.labels(x, y))


def test_hybrids_differ_from_positives_by_more_than_the_label() -> None:
    assert not HybridImages().writes_label
    assert not HybridImages().needs_index


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="blurs=0: must be at least 1"):
        HybridImages(blurs=0)
    index = torch.arange(2)
    with pytest.raises(ValueError, match=r"negatives=HybridImages needs images \(N, C, H, W\), got .*\(2, 64\)"):
        HybridImages()(torch.rand(2, 64), index, index, learner())
