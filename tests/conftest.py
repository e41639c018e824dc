"""Fixtures of every test: a seed, one thread, an empty working folder, and a restored environment."""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric.utilities import registry
from sklearn import datasets

from tests.fork_server import interpreter

ROOT = Path(__file__).parents[1]
LEFTOVERS = ("checkpoints", "figures", "lightning_logs", "logs", "predictions.csv", "wandb")

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same start for every test, and nothing of it left over: arguments, environment, W&B run."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-ff"])  # not pytest's own arguments
    monkeypatch.setenv("WANDB_MODE", "offline")
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()
    torch.use_deterministic_algorithms(False)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny tensors are faster on one thread, and two test processes share the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Stands in for `sys.executable` where `-m` follows: starts processes that have imported the package already."""
    folder = tmp_path_factory.getbasetemp()
    with interpreter(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) as path:
        yield path


@pytest.fixture(scope="module")
def forked_python(python: str) -> Iterator[None]:
    """`sys.executable` is that program, for whatever starts processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", python)
        yield


@pytest.fixture(autouse=True, scope="session")
def files_are_read_once() -> Iterator[None]:
    """The digits, and the metadata of all packages that each Trainer searches for callbacks: half of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((datasets, "load_digits"), (registry, "entry_points")):
            patch.setattr(module, name, cache(getattr(module, name)))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_tips() -> None:
    """Disable Lightning's tips in its log, which tests read."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )


@pytest.fixture(autouse=True, scope="session")
def clean_repository() -> Iterator[None]:
    """No test writes a run into the repository."""
    before = {name for name in LEFTOVERS if (ROOT / name).exists()}
    yield
    left = {name for name in LEFTOVERS if (ROOT / name).exists()} - before
    assert not left, f"a test wrote {sorted(left)} into {ROOT}: write into tmp_path, the working folder of each test"
