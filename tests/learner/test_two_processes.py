"""A learner in two processes: copies of it, and a stop that its own hook requests."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer

from lightning_ff import ForwardForward
from tests.strategies.runs import CLASSES, SGD, SHAPE, Look, Pipeline, difference, learner, trained

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")


@pytest.mark.parametrize("strategy", ["ff_ddp", "ff_pipeline"])
def test_a_learner_is_copied_during_a_run_and_after_it(strategy: str, tmp_path: Path) -> None:
    def see(trainer: Trainer, module: Any) -> None:
        twin = copy.deepcopy(module)
        torch.save([twin.state_dict(), module.state_dict()], tmp_path / f"{trainer.global_rank}.pt")

    model = learner("pair")
    trained(model, 2, strategy=Pipeline() if strategy == "ff_pipeline" else None, callbacks=[Look(see)])
    for rank in (0, 1):
        assert difference(*torch.load(tmp_path / f"{rank}.pt")) == 0.0
    again = pickle.loads(pickle.dumps(model))
    assert difference(again.state_dict(), model.state_dict()) == 0.0


class Stops(ForwardForward):
    """One process requests a stop in the hook of its fourth batch."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        if batch_idx == 3 and self.global_rank == 0:
            self.trainer.should_stop = True


@pytest.mark.parametrize("strategy", ["ff_ddp", "ff_pipeline"])
def test_a_stop_in_the_learners_own_hook_is_agreed_on(strategy: str, tmp_path: Path) -> None:
    def see(trainer: Trainer, module: Any) -> None:
        (tmp_path / str(trainer.global_rank)).write_text(str(trainer.global_step))

    torch.manual_seed(0)
    model = Stops(CLASSES, SHAPE, widths=[9, 8, 7], optimizer=SGD)
    two = Pipeline() if strategy == "ff_pipeline" else None
    trained(model, 2, strategy=two, callbacks=[Look(see)], log_every_n_steps=6, max_epochs=3)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["6", "6"]
