"""Blocks that learn, and their process: schedules, frozen blocks, stages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_ff import AppendOneHot, FixedPool, ForwardForward, Schedule, Stage, SymBa
from lightning_ff.stage import Received
from lightning_ff.sweep import KeptOutputs, Segment, Windows
from tests.sweep_runs import BATCH, CLASSES, STEPS, fit, learner, weights


class Part(Schedule):
    """Lets some blocks learn."""

    def __init__(self, learning: set[int]) -> None:
        self.learning = learning

    @override
    def learns(self, segment: Segment, epoch: int) -> bool:
        return segment.index in self.learning


def test_a_schedule_of_an_earlier_release_is_refused_with_the_new_line() -> None:
    class Old(Schedule):
        def learns(self, segment: Segment) -> bool:  # type: ignore[override]
            return True

    model = learner()
    model.schedule = Old()
    with pytest.raises(TypeError, match=r"Old.learns takes the segment alone.*def learns\(self, segment, epoch\)"):
        fit(model)


@pytest.mark.parametrize("step", ["batch", "block"])
def test_a_partial_sweep_with_a_given_input_equals_the_whole(step: Any) -> None:
    """Only block 1 learns: from the batch through a frozen block 0, or from block 0's outputs kept before."""
    trained = []
    for keeps in (False, True):
        model = learner(step=step, negatives=FixedPool())
        model.schedule = Part({1})
        model.kept_outputs = KeptOutputs(Windows([[], [(0, 2)], []]), 64.0) if keeps else None
        start = [weights(block) for block in model.blocks]
        ran: list[int] = []
        calls: list[int] = []
        for k, block in enumerate(model.blocks):
            block.layers.register_forward_hook(
                lambda *_, k=k, ran=ran: ran.append(k) if torch.is_grad_enabled() else None
            )
        model.blocks[0].layers.register_forward_hook(lambda _, x, h, calls=calls: calls.append(len(h)))
        fit(model, max_epochs=2, log_every_n_steps=1000)
        moved = [(weights(block) - before).abs().max() > 0 for block, before in zip(model.blocks, start, strict=True)]
        assert moved == [False, True, False]
        assert set(ran) == {1}
        of_batches = [2 * BATCH] * (STEPS if keeps else 2 * STEPS)
        scanned = [length for length in calls if length != 2 * BATCH]  # train/acc, at the end of each epoch
        assert [length for length in calls if length == 2 * BATCH] == of_batches
        assert len(scanned) == 2
        trained.append(weights(model))
    assert torch.equal(*trained)


def test_blocks_after_the_last_that_learns_do_not_run() -> None:
    model = learner()
    model.schedule = Part({0})
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
    assert list(model.local_optimizers.by_block) == ["block01"]


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
    model.schedule = Part({2})
    fit(model)
    assert zeros[:20] == [0.0] * 20


class Half(Stage):
    """A stage with some blocks that receives its input and sends its output, like a rank of a pipeline."""

    def __init__(self, own: set[int], inbox: list[Received], outbox: list[Received]) -> None:
        self.own, self.inbox, self.outbox = own, inbox, outbox

    @property
    @override
    def is_first(self) -> bool:
        return 0 in self.own

    @property
    @override
    def is_last(self) -> bool:
        return 2 in self.own

    @override
    def owns(self, index: int) -> bool:
        return index in self.own

    @override
    def recv_forward(self, label: Tensor | None = None) -> Received:
        return self.inbox.pop(0)

    @override
    def send_forward(self, x: Any, target: Any = None, features: Any = (), label: Tensor | None = None) -> None:
        assert not x.requires_grad
        assert label is not None
        self.outbox.append(Received(x, target, features))


def test_a_placement_shares_out_blocks_and_carries_activations() -> None:
    """Blocks 0-1 in one run and block 2 in another, with the input that the first has sent, equal one run of all."""
    whole = learner()
    fit(whole)
    channel: list[Received] = []
    parts = []
    for own in ({0, 1}, {2}):
        model = learner()
        model.network.stage = Half(own, channel, channel)
        model._log_training = lambda *_: None  # type: ignore[method-assign]  # its accuracy needs all blocks
        fit(model)
        parts += [weights(model.blocks[k]) for k in sorted(own)]
    assert torch.equal(torch.cat(parts), weights(whole))
