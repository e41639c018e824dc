"""A sweep in a plain loop has the weights of a learner under a Trainer, bit for bit."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_ff import FixedPool, ForwardForward, Labels, LinearReadout, Pairs, PeerNormalization, Sweep
from lightning_ff.negatives import NegativeContext, WrongLabel, pairs
from lightning_ff.optim import make_optimizers
from lightning_ff.sweep import KeptOutputs, Windows
from tests.methods import class_runs
from tests.sweep_runs import CLASSES, STEPS, data, fit, learner, weights

ADAM = partial(torch.optim.Adam, lr=1e-2)


def inputs(model: ForwardForward, batch: tuple[Tensor, Tensor, Tensor], sampler: Any = None) -> tuple[Tensor, Pairs]:
    """Encoded and normalised positives and negatives."""
    positive, negative = pairs(sampler or WrongLabel(), *batch, NegativeContext(model.network))
    return model.network.normalize(torch.cat((positive, negative))), Pairs(len(positive))


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"step": "block"},
        {"backward": "summed"},
        {"step": "block", "refresh_output": True},
        {"segments": "sum_of_losses"},
        {"segments": "loss_of_sum"},
        {"segments": "last"},
    ],
    ids=str,
)
@pytest.mark.parametrize("view", [None, "neutral", "positive"])
def test_pair_mode(variant: dict[str, Any], view: Any) -> None:
    parts: dict[str, Any] = {"terms": [PeerNormalization()]}
    under, alone = (learner(**parts, readout=view and LinearReadout(view=view), **variant) for _ in range(2))
    fit(under)
    network = alone.network
    sweep = Sweep(network, make_optimizers(network.owners, ADAM), **variant)
    for batch in data():
        image, label, index = batch
        result = sweep(*inputs(alone, batch), image, label, index)
    assert float((weights(under) - weights(alone)).abs().max()) == 0.0
    assert set(result.goodness) == set(network.names)
    assert ("readout" in result.losses) == (view is not None)
    assert not any(value.requires_grad for value in [*result.losses.values(), *result.goodness.values()])


def test_class_mode() -> None:
    under, alone = (class_runs.learner(optimizer=ADAM) for _ in range(2))
    batches = [(torch.rand(6, *under.network.input_shape), torch.arange(6) % under.num_classes) for _ in range(5)]
    fit(under, batches)
    alone.train()
    sweep = Sweep(alone.network, make_optimizers(alone.network.owners, ADAM))
    for image, label in batches:
        sweep(alone.network.normalize(image), Labels(label))
    assert float((weights(under) - weights(alone)).abs().max()) == 0.0


@pytest.mark.parametrize("step", ["batch", "block"])
def test_gradients_accumulate_until_an_update(step: Any) -> None:
    under = learner(accumulate_grad_batches=2, step=step)
    alone = learner()
    fit(under)
    optimizers = make_optimizers(alone.network.owners, ADAM)
    steps: list[list[str]] = []

    def take(names: list[str]) -> None:
        steps.append(names)
        optimizers.step(names=names)

    halved = Sweep(
        alone.network, optimizers, step=step, step_fn=take, backward_fn=lambda loss, _: (loss / 2).backward()
    )
    for i, batch in enumerate(data()):
        halved(*inputs(alone, batch), update=i % 2 == 1)
    assert float((weights(under) - weights(alone)).abs().max()) == 0.0
    names = alone.network.names
    assert steps == ([names] if step == "batch" else [[name] for name in names]) * (STEPS // 2)


def test_the_names_of_what_learned_go_to_backward_and_step() -> None:
    model = learner(readout=LinearReadout())
    seen: list[tuple[str, list[str]]] = []
    optimizers = make_optimizers(model.network.owners, ADAM)

    def backward(loss: Tensor, names: list[str]) -> None:
        seen.append(("backward", names))
        loss.backward()

    sweep = Sweep(
        model.network,
        optimizers,
        schedule=Windows([[(0, 1)], [(1, 2)], [(0, 2)]]),
        backward_fn=backward,
        step_fn=lambda names: seen.append(("step", names)),
    )
    image, label, index = data(1)[0]
    for sweep.epoch in range(2):
        sweep(*inputs(model, (image, label, index)), image, label, index)
    first = [("backward", [name]) for name in ("block00", "block02", "readout")]
    second = [("backward", [name]) for name in ("block01", "block02", "readout")]
    assert seen == [
        *first, ("step", ["block00", "block02", "readout"]), *second, ("step", ["block01", "block02", "readout"])
    ]  # fmt: skip
    assert all(p.grad is None for p in model.network.parameters())


def test_outputs_of_frozen_blocks_are_kept_by_sample() -> None:
    windows, sampler, batches = Windows([[(0, 1)], [(1, 3)], [(3, 5)]]), FixedPool(), data(4)
    found = []
    for keeps in (False, True):
        model = learner()
        store = KeptOutputs(windows, 64.0) if keeps else None
        sweep = Sweep(model.network, make_optimizers(model.network.owners, ADAM), schedule=windows, store=store)
        starts: list[int] = []
        for sweep.epoch in range(5):
            for batch in batches:
                start = sweep.start(batch[1], batch[2])
                starts.append(-1 if start is None else start.block)
                x, target = inputs(model, batch, sampler) if start is None else (start.x, start.target)
                sweep(x, target, *batch, block=0 if start is None else start.block)
        found.append((weights(model), starts))
    (plain, never), (kept, starts) = found
    assert never == [-1] * 20
    # epoch 0: from the data; 1: put; 2: kept for block 1; 3: from those of block 1, and put; 4: kept for block 2
    assert starts == [-1] * 8 + [1] * 8 + [2] * 4
    assert torch.equal(plain, kept)


def test_nothing_is_kept_where_inputs_change() -> None:
    model = learner()
    windows = Windows([[], [(0, 2)], []])
    sweep = Sweep(
        model.network, make_optimizers(model.network.owners, ADAM), schedule=windows, store=KeptOutputs(windows, 64.0)
    )
    batch = data(1)[0]
    for sweep.version, expected in ((None, None), (0, None), (0, 1), (1, None), (1, 1), (None, None)):
        start = sweep.start(batch[1], batch[2])
        assert (None if start is None else start.block) == expected
        x, target = inputs(model, batch, FixedPool()) if start is None else (start.x, start.target)
        sweep(x, target, *batch, block=0 if start is None else start.block)
    assert sweep.start(batch[1], None) is None


def test_target_of_a_kept_batch() -> None:
    assert CLASSES == 4
    model = learner()
    windows = Windows([[], [(0, 1)], []])
    sweep = Sweep(
        model.network, make_optimizers(model.network.owners, ADAM), schedule=windows, store=KeptOutputs(windows, 64.0)
    )
    batch = data(1)[0]
    assert sweep.start(batch[1], batch[2]) is None
    x, target = inputs(model, batch, FixedPool())
    sweep(x, target, *batch)
    start = sweep.start(batch[1], batch[2])
    assert start is not None
    assert start.target == target == Pairs(len(batch[1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"segments": "global"}, "segments='global': choose 'local'"),
        ({"backward": "once"}, "backward='once': choose one of 'per_block', 'summed'"),
        ({"step": "epoch"}, "step='epoch': choose one of 'batch', 'block'"),
        ({"step": "block", "backward": "summed"}, "step='block' needs a backward per block"),
        ({"refresh_output": True}, "refresh_output=True with step='batch'"),
    ],
    ids=str,
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    model = learner()
    with pytest.raises(ValueError, match=message):
        Sweep(model.network, make_optimizers(model.network.owners, ADAM), **arguments)


def test_optimizers_are_checked() -> None:
    model = learner()
    with pytest.raises(TypeError, match="optimizers is a Adam: make them by make_optimizers"):
        Sweep(model.network, ADAM(model.parameters()))  # type: ignore[arg-type]


def test_what_a_readout_learns_from_is_checked() -> None:
    batch = data(1)[0]
    for view, message in (
        ("neutral", "image=None: the readout learns"),
        ("positive", "label=None: the readout learns"),
    ):
        model = learner(readout=LinearReadout(view=view))  # type: ignore[arg-type]
        sweep = Sweep(model.network, make_optimizers(model.network.owners, ADAM))
        with pytest.raises(ValueError, match=message):
            sweep(*inputs(model, batch))
