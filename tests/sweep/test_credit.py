"""Credit: the default, one of a user's own, and activation relaxation against backprop and a relaxation by hand."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff import (
    ActivationRelaxation,
    Backprop,
    Credit,
    CrossEntropy,
    GreedySchedule,
    Labels,
    LastReadout,
    LinearGoodness,
    LocalBlock,
    LocalFSDP2Strategy,
    LocalLearner,
    LocalNetwork,
    Normalize,
    PeerNormalization,
    Sweep,
)
from lightning_ff.optim import BlockOptimizers, make_optimizers
from tests.strategies.runs import ADAMW, BATCH, CLASSES, SHAPE, STEPS, Pipeline, Shares, difference, trained
from tests.strategies.runs import learner as run_learner
from tests.sweep.parts import SGD, resumes_exactly

IMAGES, LABEL = (tensor for tensor in Shares().samples.tensors[:2])
GLOO = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
EXACT = partial(ActivationRelaxation, rate=1.0, steps=1)


def network(terms: bool = False, dropout: float = 0.0, norm: bool = False) -> LocalNetwork:
    """Four blocks, of which only the last one has a goodness and a loss."""
    torch.manual_seed(7)
    widths = [36, 12, 10, 8]
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        norms = [nn.BatchNorm1d(b)] if norm else []
        layers.append(nn.Sequential(nn.Linear(a, b), *norms, nn.ReLU(), nn.Dropout(dropout)))
    layers[0] = nn.Sequential(nn.Flatten(), *layers[0])  # type: ignore[misc]
    made = [PeerNormalization(0.3)] if terms else []
    blocks = [LocalBlock(m, normalization=Normalize("rms"), terms=made) for m in layers]
    last = LocalBlock(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), LinearGoodness(), CrossEntropy(), terms=made)
    return LocalNetwork([*blocks, last], SHAPE, CLASSES, LastReadout())


def learner(credit: Credit | None = None, net: Any = network, **arguments: Any) -> LocalLearner:
    kwargs = {"segments": "last"} if credit is None else {"credit": credit}
    return LocalLearner(net(), **{"optimizer": SGD, **kwargs, **arguments})


@pytest.mark.parametrize("variant", [{}, {"step": "block"}, {"accumulate_grad_batches": 2}], ids=str)
@pytest.mark.parametrize(
    "credit",
    [EXACT(), EXACT(start="activations"), ActivationRelaxation(1.0, 3, order="parallel")],
    ids=["top-down", "activations", "parallel"],
)
def test_rate_one_is_backprop_bit_for_bit(credit: Credit, variant: dict[str, Any]) -> None:
    control = learner(**{key: value for key, value in variant.items() if key != "step"})
    assert difference(trained(control, 1), trained(learner(credit, **variant), 1)) == 0.0


@pytest.mark.parametrize(
    "net",
    [
        partial(network, terms=True),
        partial(network, dropout=0.3),
        partial(network, norm=True),
        partial(network, terms=True, dropout=0.3, norm=True),
    ],
    ids=["terms", "dropout", "batch norm", "all"],
)
def test_the_pass_before_leaves_everything_as_it_was(net: Any) -> None:
    """Draws of dropout, running statistics and buffers of terms are those of backprop."""
    assert difference(trained(learner(net=net), 1), trained(learner(EXACT(), net=net), 1)) == 0.0


def test_summed_backward() -> None:
    assert difference(trained(learner(), 1), trained(learner(EXACT(), backward="summed"), 1)) == 0.0


@pytest.mark.parametrize("mode", ["pair", "class"])
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=GLOO)])
def test_losses_of_the_other_blocks_are_not_used(mode: str, processes: int) -> None:
    """As in the control: auxiliary heads stay as they are."""
    kwargs: dict[str, Any] = {"optimizer": ADAMW}
    if mode == "class":
        kwargs["readout"] = LastReadout()
    control = trained(run_learner(mode, segments="last", **kwargs), processes)
    assert difference(control, trained(run_learner(mode, credit=EXACT(), **kwargs), processes)) == 0.0


def by_hand(net: LocalNetwork, x: Tensor, y: Tensor, credit: ActivationRelaxation) -> list[Tensor]:
    """Gradients of all weights, from signals of all blocks relaxed with full Jacobians."""
    blocks = net.stack

    def after(k: int, h: Tensor) -> Tensor:
        return blocks[k].layers(blocks[k - 1].hand_over(h) if k else h)  # type: ignore[return-value, arg-type]

    outputs = [x]
    for k in range(4):
        outputs.append(after(k, outputs[-1]).detach())
    outputs = outputs[1:]
    last = outputs[-1].requires_grad_()
    (top,) = torch.autograd.grad(F.cross_entropy(blocks[-1].measure(last), y), last)
    signals = [torch.zeros_like(h) if credit.start == "zero" else h.detach() for h in outputs[:3]] + [top]
    for _ in range(credit.steps):
        source = signals if credit.order == "top-down" else list(signals)
        for k in (2, 1, 0):
            jacobian = torch.autograd.functional.jacobian(partial(after, k + 1), outputs[k].detach())
            pulled = torch.einsum("ni,nimj->mj", source[k + 1], jacobian)
            signals[k] = signals[k] - credit.rate * (signals[k] - pulled)
    gradients: list[Tensor] = []
    for k, signal in enumerate(signals):
        inputs = outputs[k - 1].detach() if k else x
        gradients += torch.autograd.grad(after(k, inputs), [*blocks[k].layers.parameters()], signal)
    return gradients


@pytest.mark.parametrize(
    "credit",
    [
        ActivationRelaxation(0.1, 5),
        ActivationRelaxation(0.3, 4, order="parallel"),
        ActivationRelaxation(0.5, 3, start="activations"),
        ActivationRelaxation(1.5, 2, start="activations", order="parallel"),
    ],
    ids=str,
)
def test_signals_equal_a_relaxation_by_hand(credit: ActivationRelaxation) -> None:
    net = network().double()
    x, y = IMAGES[:5].double(), LABEL[:5]
    expected = by_hand(net, x, y, credit)
    sweep = Sweep(net, make_optimizers(net.owners, SGD), credit=credit, step_fn=lambda names: None)
    sweep.optimizers.zero_grad = lambda **_: None  # type: ignore[method-assign, assignment]
    sweep(x, Labels(y))
    found = [p.grad for block in net.stack for p in block.layers.parameters()]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours is not None
        assert (ours - theirs).abs().max() < 1e-12


@pytest.mark.parametrize(("rate", "steps", "error"), [(0.1, 100, 1e-2), (0.5, 30, 1e-5), (1.5, 60, 1e-5)])
def test_converges_to_backprop(rate: float, steps: int, error: float) -> None:
    start = {key: value.double() for key, value in learner().state_dict().items()}
    control = trained(learner(), 1, torch.float64, limit_train_batches=1)
    relaxed = trained(learner(ActivationRelaxation(rate, steps)), 1, torch.float64, limit_train_batches=1)
    for key, value in control.items():
        moved = (value - start[key]).norm()
        assert (relaxed[key] - value).norm() <= error * moved


def test_frozen_blocks_before_the_first_that_learns() -> None:
    def frozen() -> LocalNetwork:
        net = network(norm=True)
        net.stack[0].requires_grad_(False)
        return net

    assert difference(trained(learner(net=frozen), 1), trained(learner(EXACT(), net=frozen), 1)) == 0.0


def test_losses_and_metrics() -> None:
    """Only the last block has a loss; accuracy and features are those of backprop."""
    control, relaxed = learner(), learner(EXACT())
    trained(control, 1, log_every_n_steps=20)
    trained(relaxed, 1, log_every_n_steps=20)
    one, two = control.trainer.callback_metrics, relaxed.trainer.callback_metrics
    assert set(two) == {"train/loss", "train/loss/block03", "train/acc"}
    assert float(two["train/loss"]) == float(one["train/loss"])
    assert float(two["train/acc"]) == float(one["train/acc"])


def test_backprop_preset_with_recomputation() -> None:
    def cut(**arguments: Any) -> Backprop:
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)
        )
        return Backprop(net, CLASSES, SHAPE, cuts=3, optimizer=SGD, **arguments)

    control = trained(cut(), 1)
    for recompute in (False, True):
        assert difference(control, trained(cut(credit=EXACT(), recompute=recompute), 1)) == 0.0


@pytest.mark.parametrize("step", [13, 20])
def test_resumes_exactly(step: int, tmp_path: Path) -> None:
    net = partial(network, terms=True, dropout=0.3, norm=True)
    resumes_exactly(lambda: learner(ActivationRelaxation(0.5, 3), net=net), tmp_path / "saved.ckpt", step)


@GLOO
def test_two_processes_equal_one() -> None:
    relaxed = partial(learner, ActivationRelaxation(0.5, 4))
    one, two = (trained(relaxed(), processes, torch.float64) for processes in (1, 2))
    assert difference(one, two) < 1e-9


@GLOO
def test_a_pipeline_refuses_it() -> None:
    with pytest.raises(Exception, match=r"credit=ActivationRelaxation.* looks at all blocks .* use strategy='ff_ddp'"):
        trained(learner(EXACT()), 2, strategy=Pipeline())


def test_sharded_weights_refuse_it() -> None:
    with pytest.raises(ValueError, match=r"credit=ActivationRelaxation.* in shards: use strategy='ff_ddp'"):
        LocalFSDP2Strategy().shard(learner(EXACT()))


class Half(Credit):
    """Learns from half the gradient, and hands on doubled inputs; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros((), dtype=torch.long))

    def input(self, block: int, x: Any) -> Any:
        return x * 2 if block else x

    def run(self, segment: Any, forward: Any) -> Any:
        self.runs += 1  # type: ignore[operator]
        loss, surrogate, h = super().run(segment, forward)
        return loss, surrogate / 2, h


def test_a_users_own_credit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Flatten(), nn.Linear(36, 8)), nn.Linear(8, 6)]
    blocks = [LocalBlock(m, LinearGoodness(), CrossEntropy()) for m in layers]
    model = LocalLearner(LocalNetwork(blocks, SHAPE, CLASSES, LastReadout()), optimizer=SGD, credit=Half())
    twin = [nn.ModuleList([b.layers, b.goodness.projection]) for b in network_copy(model)]  # type: ignore[union-attr, list-item]
    optimizers = [SGD(each.parameters()) for each in twin]
    for x, y in zip(IMAGES.split(BATCH), LABEL.split(BATCH), strict=True):
        h = x
        for k, (layer, head) in enumerate(twin):  # type: ignore[misc]
            h = layer((h * 2 if k else h).detach())
            optimizers[k].zero_grad()
            (F.cross_entropy(head(h), y) / 2).backward()
            optimizers[k].step()
    trained(model, 1)
    for block, each in zip(model.blocks, twin, strict=True):
        for ours, theirs in zip(block.layers.parameters(), each[0].parameters(), strict=True):
            assert (ours - theirs).abs().max() < 1e-6
    assert int(model.state_dict()["credit.runs"]) == 2 * STEPS


def network_copy(model: LocalLearner) -> list[LocalBlock]:
    return deepcopy(model.network).stack


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.0}, "rate=0.0: must lie between 0 and 2"),
        ({"rate": 2.0}, "rate=2.0: must lie between 0 and 2"),
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"start": "one"}, "start='one': choose 'zero' or 'activations'"),
        ({"order": "bottom-up"}, "order='bottom-up': choose"),
    ],
)
def test_refused_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActivationRelaxation(**arguments)


@pytest.mark.parametrize(
    ("arguments", "flags", "message"),
    [
        ({"segments": "last"}, {}, "with segments='last': it runs every block on its own, use 'local'"),
        ({"step": "block", "refresh_output": True}, {}, "refresh_output=True: signals are those of the old weights"),
        ({}, {"callbacks": [GreedySchedule(1)]}, "credit=ActivationRelaxation.* blocks learn together"),
    ],
)
def test_what_does_not_go_together(arguments: Any, flags: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trained(learner(EXACT(), **arguments), 1, **flags)


def test_a_class_in_place_of_an_instance_is_refused() -> None:
    with pytest.raises(TypeError, match="credit=ActivationRelaxation is a class: give an instance"):
        learner(ActivationRelaxation)  # type: ignore[arg-type]


def test_tuples_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.flatten(1), x.flatten(1)

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(36, 5)

        def forward(self, x: Tensor, skip: Tensor) -> Tensor:
            return self.linear(x + skip)

    blocks = [LocalBlock(Two()), LocalBlock(One(), LinearGoodness(), CrossEntropy())]
    model = LocalLearner(LocalNetwork(blocks, SHAPE, CLASSES, LastReadout()), credit=EXACT())
    with pytest.raises(ValueError, match="block00 hands on 2 tensors, since a skip crosses the cut"):
        trained(model, 1)


def test_a_loss_scale_is_refused() -> None:
    from lightning_ff.learner.checks import check_scaling

    class Half16:
        precision = "16-mixed"

    model = learner(EXACT())
    optimizers = make_optimizers(model.network.owners, SGD)
    with pytest.raises(ValueError, match=r"the signals of ActivationRelaxation.* use precision='bf16-mixed'"):
        check_scaling(Half16(), model.credit, optimizers)  # type: ignore[arg-type]
    check_scaling(Half16(), Credit(), optimizers)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no block learns by gradients, so nothing is scaled: use precision='bf16"):
        check_scaling(Half16(), Credit(), BlockOptimizers({}))  # type: ignore[arg-type]
