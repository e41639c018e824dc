"""Pictures: the numbers that are drawn, read back from the Figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from torch import Tensor

from lightning_ff.figures import goodness_histograms, new_figure, pairs, tile
from lightning_ff.labels import AppendOneHot, LabelChannel, PixelOverlay


def images(n: int, shape: Sequence[int]) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0)) * 3 - 1


def unit(values: Tensor) -> np.ndarray:
    """Scaled to lie between 0 and 1, with which a picture is drawn."""
    return ((values - values.min()) / (values.max() - values.min())).numpy()


def test_a_gray_image_keeps_every_pixel() -> None:
    x = images(1, (1, 5, 7))[0]
    np.testing.assert_allclose(tile(x, (1, 5, 7)), unit(x)[0], rtol=1e-6)
    np.testing.assert_allclose(tile(x.flatten(), (1, 5, 7)), unit(x)[0], rtol=1e-6)
    np.testing.assert_allclose(tile(x.bfloat16(), (1, 5, 7)), unit(x.bfloat16().float())[0], rtol=1e-6)


def test_a_colour_image_keeps_every_pixel_and_channel() -> None:
    x = images(1, (3, 5, 7))[0]
    picture = tile(x, (3, 5, 7))
    assert picture.shape == (5, 7, 3)
    for channel in range(3):
        np.testing.assert_allclose(picture[:, :, channel], unit(x)[channel], rtol=1e-6)


def test_vectors_and_sequences_are_drawn_as_rows() -> None:
    vector, sequence = images(1, (9,))[0], images(1, (4, 9))[0]
    np.testing.assert_allclose(tile(vector, (9,)), unit(vector)[None], rtol=1e-6)
    np.testing.assert_allclose(tile(sequence, (4, 9)), unit(sequence), rtol=1e-6)
    three = images(1, (3, 9))[0]
    np.testing.assert_allclose(tile(three, (3, 9)), unit(three), rtol=1e-6)


def test_a_constant_image_is_black() -> None:
    assert not tile(torch.full((1, 4, 4), 7.0), (1, 4, 4)).any()


def test_an_overlay_is_seen_at_its_pixel() -> None:
    overlay = PixelOverlay(on_value=5.0)
    overlay.build(4, (1, 3, 6))
    picture = tile(overlay(images(1, (1, 3, 6)), torch.tensor([2]))[0], (1, 3, 6))
    assert np.unravel_index(picture.argmax(), picture.shape) == (0, 2)


@pytest.mark.parametrize("shape", [(1, 4, 6), (3, 4, 6)], ids=str)
def test_a_label_channel_stands_beside_the_image(shape: tuple[int, ...]) -> None:
    encoding = LabelChannel(on_value=2.0)
    encoding.build(5, shape)
    x, y = images(1, shape), torch.tensor([3])
    picture = tile(encoding(x, y)[0], shape)
    assert picture.shape[:2] == (4, 12)
    np.testing.assert_allclose(picture[:, :6], tile(x[0], shape), rtol=1e-6)
    pattern = encoding.patterns[3].view(4, 6).numpy()
    channels = picture[:, 6:] if shape[0] == 1 else picture[:, 6:].transpose(2, 0, 1)
    for channel in channels.reshape(-1, 4, 6):
        np.testing.assert_array_equal(channel, pattern)


APPENDED = [
    ((1, 28, 28), 10),
    ((1, 28, 28), 100),
    ((1, 8, 8), 10),
    ((3, 8, 8), 10),
    ((1, 2, 2), 2),
    ((1, 1, 1), 7),
    ((5,), 12),
    ((64,), 10),
]


@pytest.mark.parametrize(("shape", "classes"), APPENDED, ids=str)
def test_every_class_of_an_appended_code_is_visible(shape: tuple[int, ...], classes: int) -> None:
    encoding = AppendOneHot(on_value=2.0)
    encoding.build(classes, shape)
    x = images(1, shape)
    plain = tile(x[0], shape)
    colour = shape[0] == 3
    for label in range(classes):
        picture = tile(encoding(x, torch.tensor([label]))[0], shape)
        factor = picture.shape[1] // plain.shape[1]
        height = plain.shape[0] * factor
        np.testing.assert_array_equal(picture[:height:factor, ::factor], plain)  # no pixel is lost or mixed
        np.testing.assert_array_equal(picture[factor - 1 : height : factor, factor - 1 :: factor], plain)
        strip = picture[height:, :, 0] if colour else picture[height:]
        assert len(strip) >= 1
        assert (strip == strip[0]).all()
        lit = np.flatnonzero(strip[0])
        assert len(lit) >= 3  # at least three adjacent cells at the position of the class
        assert lit[-1] - lit[0] + 1 == len(lit)
        assert set(strip[0][lit]) == {1.0}
        assert int(lit.mean() * classes / picture.shape[1]) == label
    neutral = tile(encoding.neutral(x)[0], shape)
    assert set(np.unique(neutral[height:])) == {1.0}


@pytest.mark.parametrize(("positives", "negatives"), [(4, 4), (3, 6), (5, 2), (1, 1)])
def test_pairs_draws_positives_above_negatives(positives: int, negatives: int) -> None:
    shape = (1, 5, 6)
    upper, lower = images(positives, shape), -images(negatives, shape)
    figure = pairs(upper, lower, shape)
    columns = max(positives, negatives)
    assert len(figure.axes) == 2 * columns
    for row, side in enumerate((upper, lower)):
        for column in range(columns):
            axis = figure.axes[row * columns + column]
            assert axis.get_visible() == (column < len(side))
            if column < len(side):
                (drawn,) = axis.images
                np.testing.assert_allclose(np.asarray(drawn.get_array()), unit(side[column])[0], rtol=1e-6)
                assert len(axis.get_xticks()) == len(axis.get_yticks()) == 0
    assert [figure.axes[row * columns].get_ylabel() for row in (0, 1)] == ["positive", "negative"]


def test_pairs_of_colour_images() -> None:
    figure = pairs(images(2, (3, 5, 6)), images(2, (3, 5, 6)), (3, 5, 6))
    assert [np.asarray(axis.images[0].get_array()).shape for axis in figure.axes] == [(5, 6, 3)] * 4


def containers(axis: Any) -> list[Any]:
    return list(axis.containers)


def bars(axis: Any, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Left edges and heights of one side's bars."""
    patches = containers(axis)[side].patches
    return np.array([bar.get_x() for bar in patches]), np.array([bar.get_height() for bar in patches])


def test_histograms_show_the_share_of_each_side() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = {
        "block00": (torch.randn(300, generator=generator) + 2, torch.randn(100, generator=generator)),
        "block01": (torch.rand(50, generator=generator, requires_grad=True), torch.rand(50, generator=generator)),
    }
    figure = goodness_histograms(sides, bins=13)
    assert [axis.get_title() for axis in figure.axes] == ["block00", "block01"]
    for axis, pair in zip(figure.axes, sides.values(), strict=True):
        everything = torch.cat(pair).detach().double().numpy()
        edges = np.linspace(everything.min(), everything.max(), 14)
        for side, values in enumerate(pair):
            left, heights = bars(axis, side)
            np.testing.assert_allclose(left, edges[:-1], atol=1e-6)
            counts, _ = np.histogram(values.detach().double().numpy(), edges)
            np.testing.assert_allclose(heights, counts / len(values), atol=1e-9)
        colors = {to_hex(side.patches[0].get_facecolor()) for side in containers(axis)}
        assert len(colors) == 2
    legend = figure.axes[-1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["positive", "negative"]


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ([1.0, float("nan"), 3.0], [float("inf"), 2.0]),
        ([1.0, 1.0], [1.0]),
        ([16777216.0], [16777218.0]),
        ([], [1.0]),
        ([float("nan")], [float("nan")]),
    ],
    ids=["not finite", "equal", "neighbouring floats", "one side", "nothing"],
)
def test_histograms_of_difficult_values(positive: list[float], negative: list[float]) -> None:
    figure = goodness_histograms({"block00": (torch.tensor(positive), torch.tensor(negative))})
    for side, values in enumerate((positive, negative)):
        _, heights = bars(figure.axes[0], side)
        assert heights.sum() == pytest.approx(1.0 if np.isfinite(values).any() else 0.0)


def test_figures_are_drawn_without_a_screen() -> None:
    for figure in (pairs(images(2, (1, 4, 4)), images(2, (1, 4, 4)), (1, 4, 4)), new_figure(3.0, 2.0)):
        assert isinstance(figure.canvas, FigureCanvasAgg)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        assert buffer.getvalue()[:8] == b"\x89PNG\r\n\x1a\n"
    assert tuple(new_figure(3.0, 2.0).get_size_inches()) == (3.0, 2.0)
