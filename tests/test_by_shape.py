"""An optimizer of two, and optimizers with a mode, within blocks and runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import ExponentialLR

from lightning_ff import ByShape, ForwardForward
from lightning_ff.cli import main
from lightning_ff.data import Digits

BOTH = partial(ByShape, matrices=partial(SGD, lr=0.1, momentum=0.9), others=partial(Adam, lr=0.01))
QUIET: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}


def learner(**arguments: Any) -> ForwardForward:
    seed_everything(0, verbose=False)
    return ForwardForward(10, (1, 8, 8), widths=[8, 6], **{"optimizer": BOTH, **arguments})


def fit(model: ForwardForward, epochs: int = 2, file: Path | None = None, *callbacks: Callback) -> Trainer:
    trainer = Trainer(**QUIET, max_epochs=epochs, limit_train_batches=5, callbacks=list(callbacks))
    trainer.fit(model, Digits(), ckpt_path=file)
    return trainer


def test_it_steps_as_the_two_do() -> None:
    torch.manual_seed(0)
    one, two = nn.Linear(4, 3), nn.Linear(4, 3)
    two.load_state_dict(one.state_dict())
    split = BOTH(one.parameters())
    matrices, others = SGD([two.weight], lr=0.1, momentum=0.9), Adam([two.bias], lr=0.01)
    for _ in range(3):
        x = torch.rand(5, 4)
        for net, optimizers in ((one, [split]), (two, [matrices, others])):
            for optimizer in optimizers:
                optimizer.zero_grad()  # type: ignore[attr-defined]
            net(x).square().sum().backward()
            for optimizer in optimizers:
                optimizer.step()  # type: ignore[attr-defined]
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)


def test_a_run_of_blocks_equals_one_with_the_two_as_groups(tmp_path: Path) -> None:
    model, plain = learner(), learner(optimizer=partial(SGD, lr=0.0))
    fit(model, 1)
    names = [group["name"] for group in model.local_optimizers.param_groups]
    assert names == ["block00/0", "block00/1", "block01/0", "block01/1"]
    moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True)]
    assert all(moved)


def test_it_resumes_exactly_and_follows_a_scheduler(tmp_path: Path) -> None:
    parts: dict[str, Any] = {"scheduler": partial(ExponentialLR, gamma=0.5)}
    whole, first, again = learner(**parts), learner(**parts), learner(**parts)
    fit(whole, 3)
    fit(first, 2).save_checkpoint(tmp_path / "a.ckpt")
    fit(again, 3, tmp_path / "a.ckpt")
    for one, two in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    rates = [group["lr"] for group in again.local_optimizers.param_groups]
    assert rates == pytest.approx([0.1 / 8, 0.01 / 8] * 2)
    loaded = ForwardForward.load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.optimizer.keywords["matrices"].keywords == {"lr": 0.1, "momentum": 0.9}  # type: ignore[attr-defined]


def test_from_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sgd = "{class_path: torch.optim.SGD, init_args: {lr: 0.25}}"
    arguments = f"{{matrices: {sgd}, others: torch.optim.AdamW}}"
    described = f"{{class_path: lightning_ff.ByShape, init_args: {arguments}}}"
    line = ["fit", "--model=ForwardForward", "--model.widths=[8]", f"--model.optimizer={described}", "--data=Digits"]
    cli = main([*line, "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.limit_train_batches=2"])
    made = cli.model.local_optimizers.by_block["block00"].by_block
    assert [type(each) for each in made.values()] == [SGD, AdamW]
    assert made["matrices"].param_groups[0]["lr"] == 0.25


def test_factories_are_checked() -> None:
    with pytest.raises(TypeError, match="matrices made a list: give a factory, as"):
        ByShape(nn.Linear(2, 2).parameters(), matrices=list, others=AdamW)  # type: ignore[arg-type]


class Moded(SGD):
    """Steps only in its training mode, as schedule-free optimizers do."""

    mode: bool | None = None

    def train(self) -> None:
        self.mode = True

    def eval(self) -> None:
        self.mode = False

    def step(self, closure: Any = None) -> Any:
        assert self.mode
        return super().step(closure)


class Modes(Callback):
    """Notes the mode at the end of batches, in validations and at the end."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool | None]] = []

    def _note(self, when: str, module: Any) -> None:
        modes = {optimizer.mode for optimizer in module.local_optimizers.by_block.values()}
        assert len(modes) == 1
        self.seen.append((when, *modes))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self._note("batch", pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._note("validation", pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._note("end", pl_module)


def test_optimizers_with_a_mode_are_switched_around_validations() -> None:
    modes = Modes()
    fit(learner(optimizer=partial(Moded, lr=0.1)), 2, None, modes)
    epoch = [("batch", True)] * 5 + [("validation", False)]
    assert modes.seen == [*epoch, *epoch, ("end", False)]
