"""Several pipelines at once on gloo processes, and stop requests in a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ff import LinearReadout
from tests.strategies.runs import ADAMW, SGD, STEPS, Look, Pipeline, Validated, difference, learner, trained

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")


@pytest.mark.parametrize("mode", ["pair", "class"])
@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["SGD", "AdamW"])
def test_two_pipelines_of_two_have_the_weights_of_one_process(mode: str, optimizer: Any) -> None:
    start = {name: value.double() for name, value in learner(mode, optimizer).state_dict().items()}
    one = trained(learner(mode, optimizer), 1, torch.float64)
    grid = trained(learner(mode, optimizer), 4, torch.float64, Pipeline(stages=2))
    assert difference(one, grid) <= 1e-9
    assert difference(start, grid) > 1e-3


@pytest.mark.parametrize(
    "arguments",
    [{"step": "block"}, {"accumulate_grad_batches": 3}, {"backward": "summed"}, {"readout": LinearReadout()}],
    ids=str,
)
def test_every_way_to_step(arguments: dict[str, Any]) -> None:
    one = trained(learner("class", ADAMW, **arguments), 1, torch.float64)
    grid = trained(learner("class", ADAMW, **arguments), 4, torch.float64, Pipeline(blocks=[2, 1]))
    assert difference(one, grid) <= 1e-9


def test_measures_are_those_of_one_process(tmp_path: Path) -> None:
    def save(trainer: Trainer, module: Any) -> None:
        measured = {key: float(value) for key, value in trainer.callback_metrics.items()}
        torch.save(measured, tmp_path / f"{trainer.world_size}-{trainer.global_rank}.pt")

    for processes in (1, 4):
        strategy = Pipeline(stages=2)
        trained(learner("class"), processes, torch.float64, strategy, Validated, callbacks=[Look(save)])
    one, *grid = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "4-0", "4-1", "4-2", "4-3"))
    assert {"val/acc", "val/acc/block00", "val/loss"} <= one.keys()
    for rank in grid:
        for key, value in one.items():
            if key.startswith("val"):
                assert rank[key] == pytest.approx(value, abs=1e-6), key


class RequestStop(Callback):
    """One process requests to stop after its fourth batch."""

    def __init__(self, rank: int, stop_request: Any) -> None:
        self.rank, self.stop_request = rank, stop_request

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == 4 and trainer.global_rank == self.rank:
            self.stop_request(trainer)


def stop(trainer: Trainer) -> None:
    trainer.should_stop = True


def take_long(trainer: Trainer) -> None:
    """Exceed `max_time` in this process alone."""
    timer = next(c for c in trainer.callbacks if type(c).__name__ == "Timer")  # type: ignore[attr-defined]
    timer._offset = 3600.0


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("stop_request", "flags"), [(stop, {}), (take_long, {"max_time": "00:00:30:00"})])
@pytest.mark.parametrize(("every", "end"), [(6, 6), (0, STEPS)])
def test_a_wish_to_stop_is_granted_where_processes_meet(
    rank: int, stop_request: Any, flags: dict[str, Any], every: int, end: int
) -> None:
    flags = {**flags, "max_epochs": 3, "log_every_n_steps": every}
    one = trained(learner("pair"), 1, max_steps=end)
    two = trained(learner("pair"), 2, strategy=Pipeline(), callbacks=[RequestStop(rank, stop_request)], **flags)
    assert difference(one, two) == 0.0
    assert difference(one, trained(learner("pair"), 2, callbacks=[RequestStop(rank, stop_request)], **flags)) < 1e-5
