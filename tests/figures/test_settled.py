"""One round of the layout is enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lightning_ff import figures

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "a class with a long name", "Coat"]
LABELS = np.arange(100) % 5
FIGURES: dict[str, Any] = {
    "wall": lambda r: figures.activation_wall({f"block0{i}": r.random((100, 30)) for i in range(3)}, LABELS, CLASSES),
    "bars": lambda r: figures.class_bars({"a run": {"block00": r.random(5)}}, CLASSES, "Hoyer sparsity"),
    "rdms": lambda r: figures.rdm_maps({f"block0{i}": r.random((5, 5)) for i in range(3)}, CLASSES),
    "sharing": lambda r: figures.sharing_map(r.integers(0, 50, (5, 5)), CLASSES),
    "weights": lambda r: figures.weight_histograms({f"block0{i}": r.normal(size=(30, 30)) for i in range(3)}),
}


def places(name: str) -> np.ndarray:
    """Where the panels of a figure are, in pixels."""
    figure = FIGURES[name](np.random.default_rng(0))
    return np.array([axis.get_position().bounds for axis in figure.axes]) * np.tile(figure.get_size_inches() * 120, 2)


@pytest.mark.parametrize("name", FIGURES)
def test_a_second_round_would_move_nothing_by_a_pixel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    once, execute, rounds = places(name), ConstrainedLayoutEngine.execute, []

    def twice(engine: ConstrainedLayoutEngine, figure: Figure) -> None:
        for _ in range(2):
            execute(engine, figure)
            rounds.append(1)

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", twice)
    assert np.abs(places(name) - once).max() < 1.0
    assert len(rounds) == 2
