"""Properties of every picture: nothing is blank, cut or moving, a safe palette, a lazy import of matplotlib."""

from __future__ import annotations

import ast
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import lightning_ff
from lightning_ff import figures
from lightning_ff.figures import PALETTE
from lightning_ff.figures.base import panels as new_panels
from lightning_ff.figures.base import plain, short
from tests.figures.reading import inside, overlapping, panels, pixels

RNG = np.random.default_rng(0)
LAYERS = ["block00", "a layer with a very long name indeed"]
MODELS = ["FF", "_private", "a run with quite a long name of $5 and $6"]
TEN = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
TWO = ["$a$", "b\nc"]
LONG = [f"a class with a very long name {c}" for c in range(12)]
MANY = [f"class {c}" for c in range(100)]


def by_layer(*shape: int) -> dict[str, np.ndarray]:
    return {layer: RNG.random(shape) for layer in LAYERS}


def label(c: int) -> np.ndarray:
    return np.arange(2 * c) % c


ALL: dict[str, Callable[[list[str]], Figure]] = {
    "activation_wall": lambda names: figures.activation_wall(by_layer(2 * len(names), 30), label(len(names)), names),
    "class_bars": lambda names: figures.class_bars(
        {model: by_layer(len(names)) for model in MODELS}, names, "sparsity"
    ),
    "inhibition_bars": lambda names: figures.inhibition_bars(by_layer(len(names)), by_layer(len(names)), names),
    "sharing_map": lambda names: figures.sharing_map(RNG.poisson(2.0, (len(names),) * 2), names, LAYERS[1]),
    "connectivity_map": lambda names: figures.connectivity_map(RNG.normal(size=(len(names),) * 2), names, LAYERS[1]),
    "rdm_maps": lambda names: figures.rdm_maps(by_layer(len(names), len(names)), names),
    "sample rdm_map": lambda names: figures.rdm_map(RNG.random((2 * len(names),) * 2), names, label=label(len(names))),
    "growth": lambda names: figures.growth(by_layer(4, len(names)), names, range(4)),
}
FEW: dict[str, Callable[[list[str]], Figure]] = {
    "class_profile": lambda names: figures.class_profile(RNG.random(50), RNG.random(50) > 0.9, names[-1]),
    "class_profiles": lambda names: figures.class_profiles(
        RNG.random((len(names), 20)), RNG.random((len(names), 20)) > 0.9, names, LAYERS[1]
    ),
    "probe_bars": lambda names: figures.probe_bars({name: dict.fromkeys(LAYERS, 0.8) for name in names}, 0.84),
    "accuracy_sparsity_scatter": lambda names: figures.accuracy_sparsity_scatter(
        [figures.RunPoint(name, RNG.random(), dict.fromkeys(LAYERS, RNG.random())) for name in names]
    ),
    "weight_histograms": lambda names: figures.weight_histograms(by_layer(len(names), 30)),
    "inhibition_histograms": lambda names: figures.inhibition_histograms(
        {layer: (RNG.random(20), RNG.random(30) + 1) for layer in LAYERS}
    ),
}
CASES = [
    pytest.param(draw, names, id=f"{name}-{len(names)}")
    for pictures, lists in ((ALL, (TWO, LONG, MANY)), (FEW, (TWO, LONG)))
    for name, draw in pictures.items()
    for names in lists
]


@pytest.mark.parametrize(("draw", "names"), CASES)
def test_nothing_is_blank_cut_or_moving(draw: Callable[[list[str]], Figure], names: list[str]) -> None:
    figure = draw(names)
    picture = pixels(figure)
    np.testing.assert_array_equal(pixels(figure), picture)
    for border in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (border > 250).all()
    for axis in panels(figure):
        assert (inside(axis, picture) < 250).any()
        straight = [text for text in axis.get_xticklabels() if text.get_rotation() in (0, 90)]
        assert overlapping(axis.get_yticklabels()) == overlapping(straight) == []
    assert overlapping([text for legend in figure.legends for text in legend.get_texts()]) == []
    assert overlapping([axis.title for axis in panels(figure)]) == []


def test_every_name_is_public() -> None:
    drawn = {name.split()[-1] for name in ALL | FEW} | {"goodness_histograms", "pairs", "rdm_map"}
    others = {"PALETTE", "RunPoint", "new_figure", "tile"}
    assert set(figures.__all__) == drawn | others


def test_the_figures_width_and_print_at_120_dots_per_inch() -> None:
    figure = ALL["class_bars"](TEN)
    assert figure.get_figwidth() <= 11
    sizes = [text.get_fontsize() for axis in panels(figure) for text in (axis.title, *axis.get_xticklabels())]
    assert min(sizes) * 120 / 72 >= 13  # pixels


# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB
SEEN = {
    "all cones": np.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def cielab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear.clip(0, 1) / [0.9505, 1, 1.089], 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("cones", SEEN.values(), ids=SEEN)
def test_colours_of_the_palette_differ_for_every_eye(cones: np.ndarray) -> None:
    linear = [np.array([v / 12.92 if v < 0.04 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(c)]) for c in PALETTE]
    seen = [cielab(np.asarray(cones) @ color) for color in linear]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 15


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 1, 4), (5, 2, 3), (10, 3, 4)])
def test_panels_stand_in_even_rows(count: int, rows: int, columns: int) -> None:
    figure, axes = new_panels(count, 3.0, 2.0, extra=0.5)
    assert len(axes) == len(figure.axes) == count
    grid = axes[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, columns)
    assert figure.get_size_inches().tolist() == [max(3.2, 3.0 * columns), 2.0 * rows + 0.5]


def test_names_are_shortened_in_the_middle() -> None:
    assert short("Ankle boot") == "Ankle boot"
    assert [len(short("x" * n)) for n in (15, 16, 17, 100)] == [15, 16, 16, 16]
    assert short("a class with a long name, the third", 20) == "a class with…e third"
    assert short(" two\n words ") == "two words"
    assert plain("$5 and $6") == r"\$5 and \$6"


def test_tensors_of_any_kind_are_drawn() -> None:
    rdm = torch.rand(3, 3, dtype=torch.bfloat16, requires_grad=True)
    (axis,) = panels(figures.rdm_map(rdm, ["a", "b", "c"]))
    np.testing.assert_array_equal(np.asarray(axis.images[0].get_array()), rdm.detach().float().numpy())


def test_no_module_imports_matplotlib_before_something_is_drawn() -> None:
    """It would make every import slower; torchmetrics does so in any case, so that only the source can tell."""
    for file in Path(lightning_ff.__file__).parent.rglob("*.py"):
        for statement in ast.parse(file.read_text()).body:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                assert "matplotlib" not in ast.unparse(statement), file.name
