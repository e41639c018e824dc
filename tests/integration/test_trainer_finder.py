"""The learning-rate finder as Lightning's documentation shows it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.tuner import Tuner

from lightning_ff import ForwardForward
from lightning_ff.data import Digits

pytestmark = pytest.mark.filterwarnings("ignore:::lightning")


def learner() -> ForwardForward:
    torch.manual_seed(0)
    own = {"block01": partial(torch.optim.SGD, lr=0.5)}
    return ForwardForward(
        10, (1, 8, 8), widths=[16, 12, 8], optimizer=partial(torch.optim.Adam, lr=0.01), block_optimizers=own
    )


def test_lr_is_the_factorys_until_it_is_set() -> None:
    model = learner()
    assert model.lr == 0.01
    model.lr = 0.02
    assert model.lr == 0.02


def test_the_finder_sets_the_rate_of_the_next_fit(tmp_path: object) -> None:
    model, data = learner(), Digits(batch_size=50)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, limit_val_batches=0, default_root_dir=str(tmp_path), **quiet)
    finder = Tuner(trainer).lr_find(model, data, num_training=20, early_stop_threshold=None)
    assert finder is not None
    suggested = finder.suggestion()
    assert suggested is not None
    assert model.lr == suggested != 0.01
    trainer.fit(model, data)
    rates = [group["lr"] for group in model.local_optimizers.param_groups]
    assert rates == [suggested, 0.5, suggested]


@pytest.mark.parametrize("heard", [True, False], ids=["its hooks", "hooks without super()"])
def test_the_finder_clips_as_the_run_does(heard: bool, tmp_path: object) -> None:
    norms: list[float] = []

    class Noting(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:  # type: ignore[override]
            gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.cat(gradients).norm()))
            return super().step(closure)

    def nothing(self: Any, *arguments: Any) -> None:
        """A hook without `super()`."""

    hooks = {} if heard else dict.fromkeys(("on_train_start", "on_before_optimizer_step"), nothing)
    torch.manual_seed(0)
    kind: Any = type("Watched", (ForwardForward,), hooks)
    model = kind(10, (1, 8, 8), widths=[16, 12, 8], gradient_clip_val=0.01, optimizer=partial(Noting, lr=0.1))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, limit_val_batches=0, default_root_dir=str(tmp_path), **quiet)
    Tuner(trainer).lr_find(model, Digits(batch_size=50), num_training=5, early_stop_threshold=None)
    assert len(norms) == 3 * 5
    assert max(norms) == pytest.approx(0.01, rel=1e-3)
