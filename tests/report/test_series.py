"""Metrics over training: best and last values, and series of a resumed run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lightning_ff.report.runs import read_run
from lightning_ff.report.series import Series


def test_best_is_since_every_block_has_begun(folder: Callable[..., Path]) -> None:
    """Of a network that learns block after block, the first one alone was better, which is not the network's."""
    head = "step,train/loss/block00,train/loss/block01,val/acc\n"
    greedy = read_run(folder("a", metrics_csv=head + "1,1.0,,\n4,,,0.9\n6,,1.0,\n9,,,0.5\n14,,,0.6\n19,,,0.4\n"))
    assert (greedy.begun, greedy.best("val/acc"), greedy.last("val/acc")) == (6, 0.6, 0.4)
    together = read_run(folder("b", metrics_csv=head + "4,,,0.9\n6,1.0,1.0,\n9,,,0.5\n"))
    assert (together.begun, together.best("val/acc")) == (0, 0.9)


def test_a_series_goes_on_where_another_ends() -> None:
    joined = Series.of([(10, 0.5), (20, 0.6)]).after(Series.of([(5, 0.1), (10, 0.2), (15, 0.3)]), start=10)
    assert (joined.steps.tolist(), joined.values.tolist()) == ([5, 10, 20], [0.1, 0.5, 0.6])
