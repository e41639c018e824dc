"""Label encodings: every written value, and unchanged values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_ff.labels import AppendOneHot, LabelChannel, LabelEncoding, PixelOverlay, Unlabelled

CLASSES = 4
IMAGE, RGB, FLAT, SEQUENCE = (1, 3, 5), (3, 3, 5), (11,), (2, 2, 2, 3)
WRITERS = [
    (PixelOverlay, IMAGE),
    (PixelOverlay, RGB),
    (PixelOverlay, FLAT),
    (PixelOverlay, SEQUENCE),
    (AppendOneHot, IMAGE),
    (AppendOneHot, FLAT),
    (LabelChannel, IMAGE),
    (LabelChannel, RGB),
]
each = pytest.mark.parametrize(("kind", "shape"), WRITERS, ids=lambda v: v.__name__ if isinstance(v, type) else str(v))


def inputs(n: int, shape: tuple[int, ...]) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0)) + 10


def built(kind: Any, shape: tuple[int, ...], on_value: float | None = 2.5, **arguments: Any) -> LabelEncoding:
    encoding = kind(on_value=on_value, **arguments)
    encoding.build(CLASSES, shape)
    return encoding


@pytest.mark.parametrize("shape", [IMAGE, RGB, FLAT, SEQUENCE], ids=str)
def test_overlay_overwrites_the_first_pixels_of_every_channel(shape: tuple[int, ...]) -> None:
    x = inputs(3, shape)
    encoded = built(PixelOverlay, shape)(x, torch.tensor([2, 0, 3]))
    channels = shape[0] if len(shape) > 1 else 1
    expected = x.clone().view(3, channels, -1)
    for row, label in enumerate((2, 0, 3)):
        for channel in range(channels):
            for pixel in range(CLASSES):
                expected[row, channel, pixel] = 2.5 if pixel == label else 0.0
    assert torch.equal(encoded, expected.view_as(x))


@pytest.mark.parametrize("shape", [IMAGE, FLAT], ids=str)
def test_the_code_is_appended_to_the_flat_input(shape: tuple[int, ...]) -> None:
    x = inputs(2, shape)
    encoding = AppendOneHot(on_value=2.5)
    size = x[0].numel()
    assert encoding.build(CLASSES, shape) == (size + CLASSES,)
    encoded = encoding(x, torch.tensor([1, 3]))
    assert torch.equal(encoded[:, :size], x.flatten(1))
    assert encoded[:, size:].tolist() == [[0.0, 2.5, 0.0, 0.0], [0.0, 0.0, 0.0, 2.5]]


@pytest.mark.parametrize("shape", [IMAGE, RGB], ids=str)
def test_the_label_channel_holds_the_pattern_of_the_class(shape: tuple[int, ...]) -> None:
    encoding = LabelChannel(on_value=2.5, seed=3)
    assert encoding.build(CLASSES, shape) == (shape[0] + 1, *shape[1:])
    x, y = inputs(3, shape), torch.tensor([2, 0, 2])
    encoded = encoding(x, y)
    assert torch.equal(encoded[:, :-1], x)
    channel = encoded[:, -1].flatten(1)
    assert torch.equal(channel, 2.5 * encoding.patterns[y])
    assert set(channel.unique().tolist()) == {0.0, 2.5}
    assert len(encoding.patterns.unique(dim=0)) == CLASSES


def test_patterns_of_the_label_channel_depend_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    encodings: list[Any] = [built(LabelChannel, (1, 28, 28), seed=seed) for seed in (0, 0, 1)]
    patterns = [encoding.patterns for encoding in encodings]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(patterns[0], patterns[1])
    assert not torch.equal(patterns[0], patterns[2])
    assert 0.45 < float(patterns[0].mean()) < 0.55


@each
def test_the_input_itself_is_unchanged(kind: Any, shape: tuple[int, ...]) -> None:
    encoding = built(kind, shape)
    x = inputs(3, shape)
    before = x.clone()
    encoding(x, torch.tensor([0, 1, 2]))
    encoding.candidates(x)
    encoding.neutral(x)
    assert torch.equal(x, before)


@each
def test_candidates_are_the_separate_encodings_class_after_class(kind: Any, shape: tuple[int, ...]) -> None:
    encoding = built(kind, shape)
    x = inputs(3, shape)
    separate = [encoding(x, torch.full((3,), label)) for label in range(CLASSES)]
    candidates = encoding.candidates(x)
    assert torch.equal(candidates, torch.cat(separate))
    assert tuple(candidates.shape[1:]) == encoding.shape(shape)


@each
def test_neutral_is_the_mean_of_all_classes(kind: Any, shape: tuple[int, ...]) -> None:
    encoding = built(kind, shape)
    x = inputs(3, shape)
    mean = encoding.candidates(x).view(CLASSES, 3, -1).mean(0)
    neutral = encoding.neutral(x)
    torch.testing.assert_close(neutral.flatten(1), mean)
    if kind is PixelOverlay:
        assert torch.equal(neutral.view(3, -1)[:, :CLASSES], torch.full((3, CLASSES), 2.5 / CLASSES))


@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_type_of_the_input_is_kept(kind: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    encoding = built(kind, shape)
    x = inputs(2, shape).to(dtype)
    for encoded in (encoding(x, torch.tensor([1, 2])), encoding.candidates(x), encoding.neutral(x)):
        assert encoded.dtype == dtype


@each
def test_the_on_value_is_fixed_once(kind: Any, shape: tuple[int, ...]) -> None:
    encoding = built(kind, shape, on_value=None)
    x, y = inputs(2, shape), torch.tensor([1, 2])
    assert float(encoding.on) == 1.0
    encoding.fix(3.5)
    once = encoding(x, y)
    assert torch.equal(once, built(kind, shape, on_value=3.5)(x, y))
    encoding.fix(9.0)
    assert torch.equal(encoding(x, y), once)
    assert torch.equal(encoding(10 * x, y).flatten(1) == 3.5, once.flatten(1) == 3.5)


def test_a_given_on_value_is_not_replaced() -> None:
    encoding = built(PixelOverlay, FLAT, on_value=2.0)
    encoding.fix(9.0)
    assert float(encoding.on) == 2.0


@each
def test_what_is_fixed_is_saved_and_restored(kind: Any, shape: tuple[int, ...]) -> None:
    arguments = {"seed": 7} if kind is LabelChannel else {}
    trained = built(kind, shape, on_value=None, **arguments)
    trained.fix(3.5)
    fresh = built(kind, shape, on_value=None)
    fresh.load_state_dict(trained.state_dict())
    fresh.fix(9.0)
    x, y = inputs(2, shape), torch.tensor([1, 2])
    assert torch.equal(fresh(x, y), trained(x, y))
    assert float(fresh.on) == 3.5


def test_unlabelled_writes_nothing() -> None:
    encoding = Unlabelled()
    assert encoding.build(CLASSES, IMAGE) == IMAGE
    x = inputs(2, IMAGE)
    assert encoding(x, torch.tensor([1, 2])) is x
    assert encoding.neutral(x) is x
    with pytest.raises(RuntimeError, match="give a readout that learns, such as LinearReadout"):
        encoding.candidates(x)


@pytest.mark.parametrize("shape", [(3,), (1, 1, 3), (3, 3, 1), (9, 1, 1, 3)], ids=str)
def test_overlay_needs_a_pixel_per_class(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match="has 3 pixels per channel for num_classes=4; use AppendOneHot or LabelChannel"
    ):
        PixelOverlay().build(CLASSES, shape)
    PixelOverlay().build(3, shape)


@pytest.mark.parametrize("shape", [FLAT, SEQUENCE], ids=str)
def test_the_label_channel_needs_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"labels=LabelChannel needs images \(C, H, W\), got input_shape="):
        LabelChannel().build(CLASSES, shape)


def test_the_base_names_what_to_override() -> None:
    class Mine(LabelEncoding):
        pass

    encoding = Mine(1.0)
    encoding.build(CLASSES, FLAT)
    with pytest.raises(TypeError, match=r"Mine must override write\(x, code\)"):
        encoding(inputs(1, FLAT), torch.tensor([0]))


def test_label_channel_patterns_differ_even_on_tiny_images() -> None:
    for seed in range(30):
        labels = LabelChannel(on_value=1.0, seed=seed)
        labels.build(6, (1, 2, 2))
        assert len(labels.patterns.unique(dim=0)) == 6
    with pytest.raises(ValueError, match=r"LabelChannel finds no 10 different patterns of 2 pixels.*AppendOneHot"):
        LabelChannel(on_value=1.0).build(10, (1, 1, 2))


@pytest.mark.parametrize("maximum", [0.0, -1.0])
def test_an_on_value_of_nothing_is_refused(maximum: float) -> None:
    with pytest.raises(ValueError, match=rf"on_value=None.*{maximum}.*above 0"):
        PixelOverlay().fix(maximum)


def test_images_without_a_channel_axis_are_refused_by_the_overlay() -> None:
    """Rows would be taken for channels, and the class written into each of them."""
    with pytest.raises(ValueError, match=r"input_shape=\(28, 28\): add a channel axis, \(1, 28, 28\)"):
        PixelOverlay().build(10, (28, 28))
    encoding = PixelOverlay(1.0)
    encoding.build(10, (1, 28, 28))
    with pytest.raises(ValueError, match=r"got \(5, 28, 28\): add a channel axis, image.unsqueeze\(1\)"):
        encoding(torch.rand(5, 28, 28), torch.arange(5))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_class_that_cannot_be_seen_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"on_value=.*: give a number above 0"):
        AppendOneHot(on_value=value)
