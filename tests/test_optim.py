"""One optimizer per block behind one facade: the same steps as without it, and one ordinary optimizer to torch."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau, StepLR

from lightning_ff.optim import BlockOptimizers, BlockSchedulers, CosineToEnd, make_optimizers

Factory = Callable[[Any], Optimizer]


def two_groups(parameters: Any) -> Optimizer:
    weight, bias = parameters
    groups = [{"params": [weight], "weight_decay": 0.1}, {"params": [bias], "lr": 0.05, "weight_decay": 0.0}]
    return AdamW(groups, lr=0.01)


FACTORIES: dict[str, list[Factory]] = {
    "sgd": [lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True)] * 3,
    "adam": [lambda p: Adam(p, lr=0.01)] * 3,
    "fused": [lambda p: Adam(p, lr=0.01, fused=True)] * 3,
    "adamw": [lambda p: AdamW(p, lr=0.01, weight_decay=0.1, amsgrad=True)] * 3,
    "mixed": [lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: Adam(p, lr=0.02), two_groups],
}
NAMES = ["block00", "block01", "readout"]
each = pytest.mark.parametrize("factories", FACTORIES.values(), ids=FACTORIES)


def layers() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(nn.Linear(4, 3) for _ in NAMES)


def facade_on(net: nn.ModuleList, factories: list[Factory]) -> BlockOptimizers:
    made = zip(NAMES, net, factories, strict=True)
    return BlockOptimizers({name: factory(list(layer.parameters())) for name, layer, factory in made})


def backward(net: nn.ModuleList, step: int, only: tuple[int, ...] = (0, 1, 2)) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    for k in only:
        (net[k](x) - k).square().sum().backward()


def train(net: nn.ModuleList, facade: BlockOptimizers, start: int, end: int) -> None:
    for step in range(start, end):
        backward(net, step)
        facade.step(names=NAMES)
        facade.zero_grad(names=NAMES)


def difference(a: nn.Module, b: nn.Module) -> float:
    return max(float((p - q).detach().abs().max()) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def shares(facade: BlockOptimizers) -> bool:
    """Whether the inner optimizers and the facade hold the very same groups and state."""
    groups = [group for inner in facade.by_block.values() for group in inner.param_groups]
    same = all(a is b for a, b in zip(groups, facade.param_groups, strict=True))
    return same and all(inner.state is facade.state for inner in facade.by_block.values())


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """Through a file, weights only, as a checkpoint goes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@each
def test_twenty_steps_equal_those_of_independent_optimizers(factories: list[Factory]) -> None:
    net, alone = layers(), layers()
    facade = facade_on(net, factories)
    optimizers = [factory(list(layer.parameters())) for factory, layer in zip(factories, alone, strict=True)]
    train(net, facade, 0, 20)
    for step in range(20):
        backward(alone, step)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert difference(net, alone) == 0.0
    assert difference(net, layers()) > 0.01
    assert shares(facade)


@each
def test_a_saved_facade_continues_where_it_was(factories: list[Factory]) -> None:
    straight, first = layers(), layers()
    train(straight, facade_on(straight, factories), 0, 20)
    before = facade_on(first, factories)
    train(first, before, 0, 11)
    again = copy.deepcopy(first)
    after = facade_on(again, factories)
    after.load_state_dict(saved(before.state_dict()))
    assert shares(after)
    train(again, after, 11, 20)
    assert difference(again, straight) == 0.0
    assert [group["name"] for group in after.param_groups] == [group["name"] for group in before.param_groups]


@each
def test_a_copied_facade_continues_on_its_own(factories: list[Factory]) -> None:
    net = layers()
    facade = facade_on(net, factories)
    train(net, facade, 0, 11)
    other, copied = copy.deepcopy((net, facade))
    assert shares(copied)
    train(net, facade, 11, 20)
    assert difference(net, other) > 0.0
    train(other, copied, 11, 20)
    assert difference(net, other) == 0.0


@pytest.mark.parametrize("loaded", [False, True], ids=["fresh", "loaded"])
def test_a_learning_rate_set_on_a_group_of_the_facade_acts(loaded: bool) -> None:
    net = layers()
    facade = facade_on(net, [lambda p: SGD(p, lr=0.1)] * 3)
    if loaded:
        facade.load_state_dict(saved(facade.state_dict()))
    facade.param_groups[1]["lr"] = 0.0
    before = copy.deepcopy(net)
    train(net, facade, 0, 1)
    assert facade.by_block["block01"].param_groups[0]["lr"] == 0.0
    assert [difference(a, b) > 0 for a, b in zip(net, before, strict=True)] == [True, False, True]


def test_a_scheduler_on_an_inner_optimizer_acts_after_loading() -> None:
    net = layers()
    facade = facade_on(net, FACTORIES["adam"])
    scheduler = StepLR(facade.by_block["block01"], step_size=1, gamma=0.5)
    facade.load_state_dict(saved(facade.state_dict()))
    train(net, facade, 0, 1)
    scheduler.step()
    assert [group["lr"] for group in facade.param_groups] == [0.01, 0.005, 0.01]


def test_groups_have_unique_names() -> None:
    facade = facade_on(layers(), FACTORIES["mixed"])
    assert [group["name"] for group in facade.param_groups] == ["block00", "block01", "readout/0", "readout/1"]
    assert [group["weight_decay"] for group in facade.param_groups] == [0, 0, 0.1, 0.0]
    assert [group["lr"] for group in facade.param_groups] == [0.1, 0.02, 0.01, 0.05]


def test_what_the_facade_knows_of_its_optimizers() -> None:
    net = layers()
    facade = facade_on(net, FACTORIES["mixed"])
    assert list(facade.by_block) == NAMES
    for name, layer in zip(NAMES, net, strict=True):
        assert {id(p) for p in facade.parameters(name)} == {id(p) for p in layer.parameters()}
        assert facade.name_of(facade.by_block[name]) == name
    assert facade.name_of(facade) is None
    assert repr(facade).split("\n")[1:3] == ["  block00: SGD(lr=0.1)", "  block01: Adam(lr=0.02)"]


def test_a_parameter_in_two_blocks_is_refused() -> None:
    shared = nn.Linear(4, 3)
    with pytest.raises(ValueError, match=r"shape \(3, 4\) belongs to a and to b: shared weights break locality"):
        BlockOptimizers({"a": Adam(shared.parameters()), "b": SGD([shared.weight], lr=0.1)})


def test_a_group_that_no_block_would_step_is_refused() -> None:
    facade = facade_on(layers(), FACTORIES["sgd"])
    with pytest.raises(RuntimeError, match=r"add_param_group\(\['lr', 'params'\]\).*require gradients before fit"):
        facade.add_param_group({"params": [torch.zeros(1, requires_grad=True)], "lr": 0.1})
    assert len(facade.param_groups) == 3


def test_only_those_that_learned_step_and_lose_their_gradients() -> None:
    net = layers()
    facade = facade_on(net, FACTORIES["adam"])
    train(net, facade, 0, 2)
    before = copy.deepcopy(net)
    backward(net, 2)
    facade.step(names=["block01"])
    assert [difference(a, b) > 0 for a, b in zip(net, before, strict=True)] == [False, True, False]
    facade.zero_grad(names=["block01"])
    assert [layer.weight.grad is None for layer in net] == [False, True, False]
    assert [int(facade.state[next(layer.parameters())]["step"]) for layer in net] == [2, 3, 2]


def test_without_a_count_those_with_gradients_step() -> None:
    """A custom loop, and torch's checkpoint tools, use the facade as any optimizer."""
    net = layers()
    facade = facade_on(net, FACTORIES["adam"])
    before = copy.deepcopy(net)
    facade.step()
    backward(net, 0, only=(0, 2))
    facade.step()
    assert [difference(a, b) > 0 for a, b in zip(net, before, strict=True)] == [True, False, True]
    facade.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_gradients_can_be_set_to_zero_instead_of_dropped() -> None:
    net = layers()
    facade = facade_on(net, FACTORIES["sgd"])
    backward(net, 0)
    facade.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


def test_a_closure_runs_with_gradients_and_its_value_comes_back() -> None:
    net = layers()
    facade = facade_on(net, FACTORIES["sgd"])
    before = copy.deepcopy(net)

    def closure() -> str:
        backward(net, 0)
        return "loss"

    assert facade.step(closure) == "loss"
    assert difference(net, before) > 0


@each
def test_distributed_checkpoints_save_and_load_the_facade(factories: list[Factory]) -> None:
    straight, first = layers(), layers()
    train(straight, facade_on(straight, factories), 0, 20)
    before = facade_on(first, factories)
    train(first, before, 0, 11)
    state = saved(get_optimizer_state_dict(first, before))
    assert sorted(state["state"]) == sorted(name for name, _ in first.named_parameters())
    again = copy.deepcopy(first)
    after = facade_on(again, factories)
    set_optimizer_state_dict(again, after, state)
    assert all(p.grad is None for p in again.parameters())
    assert shares(after)
    train(again, after, 11, 20)
    assert difference(again, straight) == 0.0


def schedulers(make: Callable[[Optimizer], Any], lr: float = 1.0) -> tuple[BlockOptimizers, BlockSchedulers]:
    facade = facade_on(layers(), [lambda p: SGD(p, lr=lr)] * 3)
    return facade, BlockSchedulers(facade, {name: make(inner) for name, inner in facade.by_block.items()})


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
def test_every_scheduler_counts_its_own_steps() -> None:
    facade, inner = schedulers(lambda optimizer: ExponentialLR(optimizer, 0.5))
    inner.step()
    inner.step(names=["block01"])
    inner.step(None, ["block01", "readout"])
    assert inner.get_last_lr() == [0.5, 0.125, 0.25]
    assert [group["lr"] for group in facade.param_groups] == [0.5, 0.125, 0.25]
    inner.step(names=[])
    assert inner.get_last_lr() == [0.5, 0.125, 0.25]
    assert not inner.on_plateau


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
def test_the_state_of_schedulers_is_kept_by_name() -> None:
    facade, inner = schedulers(lambda optimizer: StepLR(optimizer, step_size=3, gamma=0.1))
    inner.step()
    inner.step(names=["readout"])
    other_facade, other = schedulers(lambda optimizer: StepLR(optimizer, step_size=3, gamma=0.1))
    other.load_state_dict(saved(inner.state_dict()))
    other_facade.load_state_dict(saved(facade.state_dict()))
    for pair in (inner, other):
        pair.step()
        assert pair.get_last_lr() == [1.0, 1.0, 0.1]
        pair.step()
        assert pair.get_last_lr() == pytest.approx([0.1, 0.1, 0.1])


def test_a_plateau_needs_the_metric() -> None:
    _, inner = schedulers(lambda optimizer: ReduceLROnPlateau(optimizer, factor=0.5, patience=0))
    assert inner.on_plateau
    for metric in (1.0, torch.tensor(1.0), 0.5, 0.5):
        inner.step(metric, ["block00", "readout"])
    assert inner.get_last_lr() == [0.25, 1.0, 0.25]


def cosine(total: int | None, groups: tuple[float, ...] = (1.0,), **arguments: Any) -> CosineToEnd:
    optimizer = SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in groups], lr=1.0)
    return CosineToEnd(optimizer, total, **arguments)


def rates(scheduler: CosineToEnd, steps: int) -> Tensor:
    """Rates of every group before the first step and after each."""
    found = [scheduler.get_last_lr()]
    for _ in range(steps):
        scheduler.optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr())
    return torch.tensor(found, dtype=torch.float64)


def closed_form(step: int, total: int, flat: float, end: float) -> float:
    progress = min(1.0, max(0.0, (step - flat * total) / (total - flat * total)))
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * progress))


@pytest.mark.parametrize("flat", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("end", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("total", [1, 20])
def test_the_cosine_follows_its_formula(total: int, end: float, flat: float) -> None:
    found = rates(cosine(total, (1.0, 0.2), flat=flat, end=end), total + 3)
    expected = torch.tensor([closed_form(step, total, flat, end) for step in range(total + 4)], dtype=torch.float64)
    torch.testing.assert_close(found[:, 0], expected)
    torch.testing.assert_close(found[:, 1], 0.2 * expected)
    assert found[0, 0] == 1.0
    assert found[total:, 0].tolist() == pytest.approx([end] * 4, abs=1e-12)
    assert bool((found[: int(flat * total) + 1, 0] == 1.0).all())


def test_without_a_length_the_cosine_waits_for_it() -> None:
    scheduler = cosine(None)
    assert rates(scheduler, 3)[:, 0].tolist() == [1.0] * 4
    scheduler.total = 6
    assert rates(scheduler, 3)[1:, 0].tolist() == pytest.approx([closed_form(s, 6, 0.0, 0.0) for s in (4, 5, 6)])


def test_a_resumed_run_may_be_longer() -> None:
    first, longer = cosine(10, flat=0.2), cosine(40, flat=0.2)
    rates(first, 6)
    state = saved(first.state_dict())
    assert "total" not in state
    longer.load_state_dict(state)
    assert longer.total == 40
    assert rates(longer, 2)[1:, 0].tolist() == pytest.approx([closed_form(s, 40, 0.2, 0.0) for s in (7, 8)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flat": 1.0}, r"flat=1.0: must lie in \[0, 1\)"),
        ({"flat": -0.1}, r"flat=-0.1: must lie in \[0, 1\)"),
        ({"total": 0}, "total=0: must be at least 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cosine(**{"total": 5, **arguments})


@pytest.mark.parametrize("dampening", [0.0, 0.4])
@pytest.mark.parametrize("nesterov", [False, True])
def test_fused_momentum_of_weights_that_get_their_gradient_later(dampening: float, nesterov: bool) -> None:
    if nesterov and dampening:
        pytest.skip("torch refuses them together")
    rates: Any = {"lr": 0.1, "momentum": 0.9, "dampening": dampening, "nesterov": nesterov}
    ours, plain = layers(), layers()
    facade = make_optimizers({"all": ours}, lambda p: SGD(p, **rates))
    reference = SGD(plain.parameters(), **rates, foreach=False)
    (inner,) = facade.by_block.values()
    assert bool(inner.param_groups[0].get("fused")) == (dampening == 0)
    for step in range(4):
        for net in (ours, plain):
            for k, layer in enumerate(net):
                if k <= step:
                    layer(torch.ones(2, 4) * (k + 1)).square().sum().backward()
        facade.step()
        reference.step()
        assert set(inner.state) == set(list(ours.parameters())[: 2 * (step + 1)])
        for optimizer in (facade, reference):
            optimizer.zero_grad()
        for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b)


class Lookahead(Optimizer):
    """Wraps another optimizer."""

    def __init__(self, parameters: Any) -> None:
        inner = SGD(parameters, lr=0.1)
        super().__init__(inner.param_groups, inner.defaults)
        self.inner = inner


def test_an_optimizer_that_wraps_another_warns() -> None:
    with pytest.warns(UserWarning, match="the optimizer of all is Lookahead, which wraps SGD: what it keeps by itself"):
        make_optimizers({"all": layers()}, Lookahead)
