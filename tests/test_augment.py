"""Augmentation of whole batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ff import Compose, Cutout, RandomFlip, RandomShift
from lightning_ff.spec import describe, part


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


def test_flips_mirror_some_images_as_a_whole() -> None:
    torch.manual_seed(0)
    x = torch.rand(600, 2, 5, 6)
    result = RandomFlip(0.25)(x)
    mirrored = torch.tensor([torch.equal(a, b) for a, b in zip(result, x.flip(3), strict=True)])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(result, x, strict=True)])
    assert torch.equal(mirrored, ~same)
    assert 0.18 < mirrored.float().mean() < 0.32
    assert torch.equal(RandomFlip(0.0)(x), x)
    assert torch.equal(RandomFlip(1.0)(x), x.flip(3))


@pytest.mark.parametrize("size", [1, 3, 4, 20])
def test_cutout_makes_one_hole_anywhere(size: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(300, 2, 6, 7) + 1
    holes = Cutout(size, value=-2.0)(x)
    centres = set()
    for image, result in zip(x, holes, strict=True):
        gone = (result == -2.0).all(0)
        assert torch.equal(torch.where(gone, -2.0, image), result)
        rows, columns = (gone.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        assert rows == list(range(rows[0], rows[-1] + 1))
        assert bool(gone[rows][:, columns].all())
        assert len(rows) <= min(size, 6)
        assert len(columns) <= min(size, 7)
        centres.add((rows[0], rows[-1], columns[0], columns[-1]))
    starts, ends = range(-(size // 2), 6 - size // 2), range(-(size // 2), 7 - size // 2)
    spans = [{(max(0, s), min(n, s + size) - 1) for s in places} for n, places in ((6, starts), (7, ends))]
    assert {c[:2] for c in centres} == spans[0]
    assert {c[2:] for c in centres} == spans[1]


def test_several_run_one_after_another_and_can_be_described() -> None:
    x = torch.rand(10, 1, 6, 6)
    chain = Compose([RandomFlip(1.0), Cutout(100)])
    assert torch.equal(chain(x), torch.zeros_like(x))
    again = part(describe(Compose([RandomShift(2), Cutout(3, value=0.5), RandomFlip(0.1)])))
    torch.manual_seed(1)
    first = again(x)
    torch.manual_seed(1)
    assert torch.equal(first, RandomFlip(0.1)(Cutout(3, value=0.5)(RandomShift(2)(x))))


LIST = "give a list, such as [RandomShift(4), RandomFlip()]"
REFUSED: dict[str, tuple[type[Exception], Callable[[], nn.Module]]] = {
    "p=1.5: must lie in [0, 1]": (ValueError, lambda: RandomFlip(1.5)),
    "p=-0.1: must lie in [0, 1]": (ValueError, lambda: RandomFlip(-0.1)),
    "p=nan: must lie in [0, 1]": (ValueError, lambda: RandomFlip(float("nan"))),
    "p='a' is a str: give a number; must lie in [0, 1]": (TypeError, lambda: RandomFlip("a")),  # type: ignore[arg-type]
    "p=True is a bool: must lie in [0, 1]": (TypeError, lambda: RandomFlip(True)),
    "pixels=1.5 is a float: give a whole number": (TypeError, lambda: RandomShift(1.5)),  # type: ignore[arg-type]
    "pixels='2' is a str: give a whole number": (TypeError, lambda: RandomShift("2")),  # type: ignore[arg-type]
    "size=0: must be at least 1": (ValueError, lambda: Cutout(0)),
    "size=8.0 is a float: give a whole number": (TypeError, lambda: Cutout(8.0)),  # type: ignore[arg-type]
    "value='0' is a str: give a number; give a finite number": (TypeError, lambda: Cutout(8, "0")),  # type: ignore[arg-type]
    "value=inf: give a finite number": (ValueError, lambda: Cutout(8, float("inf"))),
    "transforms[0]='flip' is a str: give a module, such as RandomShift(4)": (TypeError, lambda: Compose(["flip"])),  # type: ignore[list-item]
    f"transforms=RandomFlip(p=0.5) is a RandomFlip: {LIST}": (TypeError, lambda: Compose(RandomFlip())),  # type: ignore[arg-type]
    f"transforms=RandomFlip is a class: {LIST}": (TypeError, lambda: Compose(RandomFlip)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_arguments(message: str) -> None:
    error, make = REFUSED[message]
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message


def test_modules_that_could_be_read_only_once_are_refused() -> None:
    with pytest.raises(TypeError, match=r"transforms=<generator .* is a generator: give a list, such as \[RandomShift"):
        Compose(RandomFlip() for _ in range(2))  # type: ignore[arg-type]
    assert len(Compose(Compose((RandomFlip(), Cutout(np.int64(2)))).transforms).transforms) == 2  # type: ignore[arg-type]
