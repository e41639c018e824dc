"""Every argument of the public classes refuses values of other types, and names itself."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import lightning_ff
import lightning_ff.data as data
from tests.bad_values import ALIASES, BAD, SKIPPED, VALID, arguments, classes, folder, sweep, takes, wrong

CLASSES = classes()
ROWS = [(name, argument) for name, kind in CLASSES.items() for argument in arguments(kind)]
CHECKED = [row for row in ROWS if row not in SKIPPED]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("pictures"))


def refuses(name: str, argument: str, value: Any, root: str) -> None:
    """Assert that a class raises for a value, and names the argument."""
    given = {key: make() for key, make in VALID.get(name, {}).items()}
    if name == "Sweep":
        given = sweep()
    if name == "ImageFolder":
        given = {"root": root}
    with pytest.raises((TypeError, ValueError)) as caught:
        CLASSES[name](**{**given, argument: value})
    assert ALIASES.get((name, argument), argument) in str(caught.value)


def test_the_table_is_that_of_the_signatures() -> None:
    assert not set(SKIPPED) - set(ROWS)
    assert {row for row in ROWS if not list(wrong(arguments(CLASSES[row[0]])[row[1]]))} == set()
    assert {name for name, argument in SKIPPED if CLASSES[name].__module__.startswith("lightning_ff")} == {
        name for name, _ in SKIPPED
    }
    assert len(CHECKED) > 200


@pytest.mark.parametrize("name", sorted({name for name, _ in CHECKED}))
def test_values_of_other_types_are_refused_by_name(name: str, root: str) -> None:
    for _, argument in (row for row in CHECKED if row[0] == name):
        for bad in wrong(arguments(CLASSES[name])[argument]):
            refuses(name, argument, BAD[bad], root)


def strategy(kinds: set[str]) -> st.SearchStrategy[Any]:
    """Values of types that an argument does not take."""
    found: list[st.SearchStrategy[Any]] = [st.complex_numbers(), st.dates(), st.builds(object)]
    if "list" not in kinds:
        found += [st.binary(), st.sets(st.integers()), st.tuples(st.text(), st.none())]
    if not kinds & {"str", "choice", "list"}:
        found.append(st.text())
    if "mapping" not in kinds:
        found.append(st.dictionaries(st.text(), st.integers(), min_size=1))
    if not kinds & {"float", "int"}:
        found.append(st.floats())
    return st.one_of(found)


@pytest.mark.parametrize("name", sorted({name for name, _ in CHECKED}))
@settings(max_examples=3, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(draws=st.data())
def test_drawn_values_of_other_types_are_refused_by_name(name: str, root: str, draws: st.DataObject) -> None:
    row = draws.draw(st.sampled_from([argument for of, argument in CHECKED if of == name]))
    refuses(name, row, draws.draw(strategy(takes(arguments(CLASSES[name])[row]))), root)


OUT_OF_BOUNDS: dict[str, tuple[Any, str]] = {
    "parameter": (lambda: lightning_ff.EnsembleMonitor(parameter=-1), "parameter=-1: give a number of 0 or more"),
    "seed": (lambda: lightning_ff.WrongLabel(seed=2**70), "seed=.* is too large"),
    "widths": (lambda: lightning_ff.ForwardForward(10, (1, 8, 8), widths=[2**70]), "widths.*is too large"),
    "batch size": (lambda: data.Digits(batch_size=2**70), "batch_size=.* is too large"),
    "channels": (lambda: lightning_ff.ConvNet(10, channels=0), "channels=0: each must be at least 1"),
    "classes": (lambda: lightning_ff.ConvNet(0), "num_classes=0"),
    "classes of MLP": (lambda: lightning_ff.MLP(0, 64), "num_classes=0: must be at least 1"),
    "timeout": (lambda: lightning_ff.LocalDDPStrategy(timeout=timedelta(0)), "timeout=.* must be above 0"),
    "total": (lambda: lightning_ff.CosineToEnd(sgd(), total=2.5), "total=2.5 is a float"),  # type: ignore[arg-type]
    "end": (lambda: lightning_ff.CosineToEnd(sgd(), end=1.5), "end=1.5: must lie in"),
    "steps": (lambda: lightning_ff.GoodnessMonitor(every_n_steps=0), "every_n_steps=0: must be at least 1"),
}


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)


@pytest.mark.parametrize("case", OUT_OF_BOUNDS)
def test_values_out_of_bounds_are_refused(case: str) -> None:
    make, message = OUT_OF_BOUNDS[case]
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_samplers_beyond_the_run(tmp_path: Path) -> None:
    from lightning.pytorch import Trainer

    switch = lightning_ff.SwitchNegatives({0: lightning_ff.WrongLabel(), 99: lightning_ff.HybridImages()})
    trainer = Trainer(accelerator="cpu", logger=False, max_epochs=1, callbacks=[switch], enable_progress_bar=False,
                      enable_checkpointing=False, limit_train_batches=1)  # fmt: skip
    with pytest.warns(UserWarning, match="SwitchNegatives: epochs \\[99\\] are beyond the run of 1 epochs"):
        trainer.fit(lightning_ff.ForwardForward(10, (1, 8, 8), widths=[8]), data.Digits())
