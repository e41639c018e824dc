"""Which blocks learn and where they are: schedules, frozen blocks, placements."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from typing_extensions import override

from lightning_ff import AppendOneHot, ForwardForward, LocalLearner, Placement, Schedule, SymBa
from lightning_ff.sweep import Arrived, Segment
from tests.sweep_runs import CLASSES, data, fit, learner, loader, weights


class Part(Schedule):
    """Starts at a block, with its input computed before, and lets some blocks learn."""

    def __init__(self, first: int, learning: set[int], learner: LocalLearner) -> None:
        self.first, self.learning, self.learner = first, learning, learner

    @override
    def start(self) -> int:
        return self.first

    @override
    def learns(self, segment: Segment) -> bool:
        return segment.index in self.learning

    @override
    def input(self, image: Tensor, label: Tensor, index: Tensor | None) -> tuple[Tensor, int] | None:
        if self.first == 0:
            return None
        with torch.no_grad():
            x, positives = self.learner.inputs(image, label, index)
            for block in self.learner.blocks[: self.first]:
                x = block.hand_over(block(x)[0])
        return x, positives


@pytest.mark.parametrize("step", ["batch", "block"])
def test_a_partial_sweep_with_a_given_input_equals_the_whole(step: Any) -> None:
    """Only block 1 learns: from the batch through a frozen block 0, or from block 0's outputs computed before."""
    trained = []
    for first in (0, 1):
        model = learner(step=step)
        model.schedule = Part(first, {1}, model)
        start = [weights(block) for block in model.blocks]
        ran: list[int] = []
        for k, block in enumerate(model.blocks):
            block.layers.register_forward_hook(
                lambda *_, k=k, ran=ran: ran.append(k) if torch.is_grad_enabled() else None
            )
        fit(model)
        moved = [(weights(block) - before).abs().max() > 0 for block, before in zip(model.blocks, start, strict=True)]
        assert moved == [False, True, False]
        assert set(ran) == {1}
        trained.append(weights(model))
    assert torch.equal(*trained)


def test_blocks_after_the_last_that_learns_do_not_run() -> None:
    model = learner()
    model.schedule = Part(0, {0}, model)
    calls = []
    model.blocks[1].layers.register_forward_hook(lambda *_: calls.append(1) if model.network.training else None)
    fit(model)
    assert calls == []


def test_a_frozen_block_runs_in_eval_mode_and_stays() -> None:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Flatten(), nn.Linear(29, 16), nn.BatchNorm1d(16), nn.ReLU()), nn.Linear(16, 8)]
    model = ForwardForward(CLASSES, (1, 5, 5), blocks=layers, loss=SymBa(), labels=AppendOneHot(on_value=1.0))
    layers[0].requires_grad_(False)
    before = {k: v.clone() for k, v in layers[0].state_dict().items()}
    second = weights(layers[1])
    fit(model)
    assert all(torch.equal(v, before[k]) for k, v in layers[0].state_dict().items())
    assert not torch.equal(second, weights(layers[1]))
    assert list(model.facade.inner) == ["block01"]


def test_a_block_without_parameters_drops_in_training_and_not_while_it_waits() -> None:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Flatten(), nn.Linear(29, 16), nn.ReLU()), nn.Dropout(0.5), nn.Linear(16, 8)]
    model = ForwardForward(CLASSES, (1, 5, 5), blocks=layers, loss=SymBa(), labels=AppendOneHot(on_value=1.0))
    zeros: list[float] = []

    def dropped(_: nn.Module, x: tuple[Tensor], h: Tensor) -> None:
        zeros.append(float(((h == 0) & (x[0] != 0)).sum() / (x[0] != 0).sum()))

    layers[1].register_forward_hook(dropped)
    fit(model)
    assert sum(zeros[:20]) / 20 == pytest.approx(0.5, abs=0.05)
    zeros.clear()
    model.schedule = Part(0, {2}, model)
    fit(model)
    assert zeros[:20] == [0.0] * 20


class Half(Placement):
    """Owns some segments, gets its input and passes its output on, as one rank of a pipeline does."""

    def __init__(self, mine: set[int], inbox: list[Arrived], outbox: list[Arrived]) -> None:
        self.mine, self.inbox, self.outbox = mine, inbox, outbox

    @override
    def owns(self, segment: Segment) -> bool:
        return segment.index in self.mine

    @override
    def take(self, label: Tensor) -> Arrived | None:
        return None if 0 in self.mine else self.inbox.pop(0)

    @override
    def send(self, x: Any, target: Tensor | int, features: list[Tensor]) -> None:
        assert not x.requires_grad
        self.outbox.append(Arrived(x, target, features))

    @property
    @override
    def sends(self) -> bool:
        return 2 not in self.mine


def test_a_placement_shares_out_blocks_and_carries_activations() -> None:
    """Blocks 0-1 in one run and block 2 in another, fed with what the first sent, equal the whole in one run."""
    whole = learner()
    fit(whole)
    channel: list[Arrived] = []
    parts = []
    for mine in ({0, 1}, {2}):
        model = learner()
        model.network.placement = Half(mine, channel, channel)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, loader(data()))
        parts += [weights(model.blocks[k]) for k in sorted(mine)]
    assert torch.equal(torch.cat(parts), weights(whole))
