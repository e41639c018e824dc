"""Every callback works under every strategy, or raises an error that names what to use instead."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.multiprocessing import ProcessRaisedException

import lightning_ff.callbacks
from lightning_ff import FixedPool, WrongLabel
from lightning_ff.callbacks import (
    BlockSummary,
    EnsembleMonitor,
    GoodnessMonitor,
    GreedySchedule,
    MineNegatives,
    MixNegatives,
    NegativePictures,
    PredictionWriter,
    ProbeMonitor,
    RefreshNegatives,
    RunReport,
    SparsityMonitor,
    SwitchNegatives,
    WindowSchedule,
)
from tests.strategies.runs import Ddp, Look, Pipeline, Validated, learner, trained

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
CALLBACKS: dict[str, Callable[[], Callback]] = {
    "BlockSummary": BlockSummary,
    "EnsembleMonitor": partial(EnsembleMonitor, every_n_epochs=2),
    "GoodnessMonitor": partial(GoodnessMonitor, every_n_steps=4, histogram_every_n_epochs=2),
    "GreedySchedule": partial(GreedySchedule, 1),
    "MineNegatives": MineNegatives,
    "MixNegatives": lambda: MixNegatives([WrongLabel(), FixedPool()], [1, 0], [0, 1], epochs=2),
    "NegativePictures": NegativePictures,
    "PredictionWriter": PredictionWriter,
    "ProbeMonitor": partial(ProbeMonitor, every_n_epochs=1, folds=2),
    "RefreshNegatives": RefreshNegatives,
    "RunReport": RunReport,
    "SparsityMonitor": SparsityMonitor,
    "SwitchNegatives": lambda: SwitchNegatives({1: FixedPool()}),
    "WindowSchedule": lambda: WindowSchedule([[(0, 1)], [(0, 2)], [(1, 2)]]),
}
STRATEGIES = {"ff_ddp": Ddp, "ff_pipeline": Pipeline}


def test_the_list_is_whole() -> None:
    assert CALLBACKS.keys() | {"ILT"} == set(lightning_ff.callbacks.__all__)  # a WindowSchedule of given windows


def run(name: str, folder: Path, processes: int, strategy: Any) -> list[dict[str, float]]:
    """Metrics of each process after two epochs with a callback."""

    def save(trainer: Trainer, module: Any) -> None:
        measured = {key: float(value) for key, value in trainer.callback_metrics.items()}
        torch.save(measured, folder / f"{processes}-{trainer.global_rank}.pt")

    negatives = {"negatives": FixedPool()} if name in ("RefreshNegatives", "GreedySchedule") else {}
    trained(
        learner("pair", **negatives),
        processes,
        torch.float64,
        strategy,
        Validated,
        callbacks=[CALLBACKS[name](), Look(save)],
        max_epochs=-1 if "Schedule" in name else 2,
        log_every_n_steps=4,
        logger=CSVLogger(folder, name="", version=str(processes)),
        num_sanity_val_steps=0,
    )
    return [torch.load(folder / f"{processes}-{rank}.pt") for rank in range(processes)]


@cache
def alone(name: str) -> dict[str, float]:
    """Metrics of one process, for both strategies."""
    return run(name, Path.cwd(), 1, None)[0]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", CALLBACKS)
def test_every_callback_measures_what_one_process_does_or_is_refused(name: str, strategy: str, tmp_path: Path) -> None:
    two = STRATEGIES[strategy]()
    if strategy == "ff_pipeline" and getattr(CALLBACKS[name](), "needs_all_blocks", False):
        with pytest.raises(ProcessRaisedException, match="in one process: remove it, or use strategy='ff_ddp'"):
            run(name, tmp_path, 2, two)
        return
    one = alone(name)
    assert len(one) > 5
    for rank in run(name, tmp_path, 2, two):
        for key, value in one.items():
            if key.startswith(("train/loss", "train/acc", "val")):  # others are of a share of a batch
                assert rank[key] == pytest.approx(value, abs=1e-5), key
