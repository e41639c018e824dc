"""A pipeline logs the same values at log intervals as one process."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch.multiprocessing import ProcessRaisedException

from tests.strategies.runs import STEPS, Look, Pipeline, Shares, learner, trained

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")


def run(folder: Path, processes: int, strategy: Any = None, **flags: Any) -> list[dict[str, Any]]:
    """Metrics of every process after the run; of the first also the rows of the log file."""
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    folder = folder / str(processes)

    def save(trainer: Trainer, module: Any) -> None:
        folder.mkdir(exist_ok=True)
        known = {key: float(value) for key, value in trainer.callback_metrics.items()}
        torch.save({"known": known}, folder / f"{trainer.global_rank}.pt")

    callbacks = [*flags.pop("callbacks", []), Look(save)]
    trained(
        learner("pair"),
        processes,
        strategy=strategy or Pipeline(),
        callbacks=callbacks,
        **{"max_epochs": 2, "logger": CSVLogger(folder, name="", version="log"), **flags},
    )
    log = folder / "log" / "metrics.csv"
    lines = log.read_text().splitlines() if log.exists() else []
    rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(lines)]
    return [{**torch.load(folder / f"{rank}.pt"), "rows": rows} for rank in range(processes)]


def steps(found: dict[str, Any]) -> list[int]:
    """Steps with a training loss in the log file."""
    return [int(row["step"]) for row in found["rows"] if "train/loss" in row]


@pytest.mark.parametrize(("processes", "every"), [(2, 1), (2, 4), (3, 7)])
def test_loggers_get_what_one_process_logs(processes: int, every: int, tmp_path: Path) -> None:
    (one,), all_ = (run(tmp_path, n, log_every_n_steps=every) for n in (1, processes))
    assert len(steps(one)) == 2 * STEPS // every
    assert all_[0]["rows"] == one["rows"]
    for rank in all_:
        assert rank["known"] == pytest.approx(one["known"], abs=1e-6)


def test_of_several_pipelines_the_means_are_logged(tmp_path: Path) -> None:
    flags = {"log_every_n_steps": 4}
    (one,), grid = run(tmp_path, 1, **flags), run(tmp_path, 4, strategy=Pipeline(stages=2), **flags)
    assert [row.keys() for row in grid[0]["rows"]] == [row.keys() for row in one["rows"]]
    for want, got in zip(one["rows"], grid[0]["rows"], strict=True):
        assert {key: float(got[key]) for key in want} == pytest.approx({k: float(v) for k, v in want.items()}, abs=1e-5)
    assert all(rank["known"] == grid[0]["known"] for rank in grid)


class Broken(Shares):
    """The third batch has an image of NaN."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(dtype)
        self.samples.tensors[0][25] = torch.nan


def test_a_loss_that_is_not_finite_ends_all() -> None:
    with pytest.raises(ProcessRaisedException, match="the loss of block00 is nan"):
        trained(learner("pair"), 2, strategy=Pipeline(), data=Broken, log_every_n_steps=4)
