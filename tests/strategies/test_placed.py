"""Gradients of linear layers that are computed where other processes read them."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.autograd import forward_ad

from lightning_ff import ForwardForward
from lightning_ff.strategies import placed
from lightning_ff.strategies.placed import Placing
from tests.strategies.runs import CLASSES, SGD, SHAPE, STEPS, Look, difference, learner, trained

PLAIN = partial(torch.optim.SGD, lr=0.1)
SHARE = 1 / 3


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed, "LEAST", 1)


def layer(**arguments: Any) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 3, **{"dtype": torch.float64, **arguments})


def rows(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Places:
    """Gives a place for the gradient of each weight, the first time it is asked."""

    def __init__(self) -> None:
        self.given: dict[Tensor, Tensor] = {}

    def __call__(self, weight: Tensor) -> Tensor | None:
        if weight in self.given:
            return None
        self.given[weight] = torch.full_like(weight, float("nan"))
        return self.given[weight].view_as(weight)


def gradients(act: Callable[[nn.Linear, Tensor], Tensor], linear: nn.Linear, places: Places | None) -> list[Tensor]:
    """By the input and by each parameter, of the sum of squares of what is made of both."""
    x = rows(7, 5).requires_grad_()
    if places is None:
        act(linear, x).square().sum().backward()
    else:
        with Placing([linear], places, SHARE):
            act(linear, x).square().sum().backward()
        for weight, share in places.given.items():
            weight.grad = share / SHARE if weight.grad is None else weight.grad + share / SHARE
    found = [x.grad, *(parameter.grad for parameter in linear.parameters())]
    return [gradient for gradient in found if gradient is not None]


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_torchs_own_and_lie_in_their_place(bias: bool) -> None:
    linear, places = layer(bias=bias), Places()
    found = gradients(lambda linear, x: linear(x), linear, places)
    expected = gradients(lambda linear, x: linear(x), layer(bias=bias), None)
    assert len(found) == len(expected) == 2 + bias
    for gradient, right in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, right, rtol=0, atol=1e-13)
    torch.testing.assert_close(places.given[linear.weight], expected[1] / 3, rtol=0, atol=1e-13)


def test_what_has_a_place_is_not_in_the_weights_gradient() -> None:
    linear = layer()
    with Placing([linear], Places(), 0.5):
        linear(rows(7, 5)).sum().backward()
    assert linear.weight.grad is None
    assert linear.bias.grad is not None


def twice(linear: nn.Linear, x: Tensor) -> Tensor:
    return linear(x) * linear(x.sin())


def on_top_of_another(linear: nn.Linear, x: Tensor) -> Tensor:
    linear(x.cos()).sum().backward()
    return linear(x)


def penalised(linear: nn.Linear, x: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(linear(x).tanh().sum(), linear.weight, create_graph=True)
    return slope.square().sum() + linear(x)


@pytest.mark.parametrize("act", [twice, on_top_of_another, penalised])
def test_a_weight_with_several_gradients_gets_their_sum(act: Callable[[nn.Linear, Tensor], Tensor]) -> None:
    for gradient, right in zip(gradients(act, layer(), Places()), gradients(act, layer(), None), strict=True):
        torch.testing.assert_close(gradient, right, rtol=0, atol=1e-13)


def dual(linear: nn.Linear, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(linear(forward_ad.make_dual(x, x.detach()))).tangent
        assert tangent is not None
        return tangent


def cast(linear: nn.Linear, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return linear(x).double()


OTHERS: dict[str, Callable[[nn.Linear, Tensor], Tensor]] = {
    "three dimensions": lambda linear, x: linear(x[None]),
    "autocast": cast,
    "forward mode": dual,
    "jvp": lambda linear, x: torch.func.jvp(linear, (x,), (x.detach(),))[1],
    "vmap": lambda linear, x: torch.func.vmap(linear)(torch.stack([x, x])),
    "grad": lambda linear, x: torch.func.vjp(linear, x)[1](rows(7, 3))[0],
    "no gradient of the weight": lambda linear, x: linear.requires_grad_(False)(x),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.*:FutureWarning")  # of torch's own forward mode
@pytest.mark.parametrize("act", OTHERS.values(), ids=OTHERS)
def test_other_ways_through_a_layer_are_torchs_own(act: Callable[[nn.Linear, Tensor], Tensor]) -> None:
    places = Places()
    for gradient, right in zip(gradients(act, layer(), places), gradients(act, layer(), None), strict=True):
        torch.testing.assert_close(gradient, right, rtol=0, atol=1e-13)
    assert not places.given


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_layers_that_are_small_or_no_plain_ones_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, own, wrapped = layer(), Doubled(5, 3), layer()
    wrapped.forward = lambda input: -input  # type: ignore[method-assign]
    bound = nn.utils.parametrizations.weight_norm(layer())
    before = [vars(module).get("forward") for module in (own, wrapped, bound)]
    with Placing([nn.Sequential(plain, own, wrapped, bound)], Places(), SHARE):
        assert [vars(module).get("forward") for module in (own, wrapped, bound)] == before
        assert "forward" in vars(plain)
    assert "forward" not in vars(plain)
    monkeypatch.setattr(placed, "LEAST", 16)
    with Placing([plain], Places(), SHARE):
        assert "forward" not in vars(plain)


def test_a_copy_made_meanwhile_is_a_plain_layer() -> None:
    linear, places, x = layer(), Places(), rows(7, 5)
    with Placing([linear], places, SHARE):
        copies = [copy.deepcopy(nn.Sequential(linear))[0], pickle.loads(pickle.dumps(linear))]
    for made in copies:
        assert type(made) is nn.Linear
        torch.testing.assert_close(made(x), linear(x), rtol=0, atol=0)
        with torch.no_grad():
            made.weight.zero_()  # it runs with weights of its own
        torch.testing.assert_close(made(x), made.bias.expand(7, 3), rtol=0, atol=0)
        made(x).sum().backward()
    assert not places.given


def test_what_the_backward_does_not_need_may_be_changed_before_it() -> None:
    linear, frozen, places = layer(), layer().requires_grad_(False), Places()
    with Placing([linear, frozen], places, SHARE):
        x = rows(7, 5)
        y = linear(x)
        with torch.no_grad():
            linear.weight.clamp_(-0.1, 0.1)  # no gradient by x is asked for
        y.sum().backward()
        h = rows(7, 5, seed=2).requires_grad_()
        inside = h * 1.0
        y = frozen(inside)
        inside.add_(1.0)  # no gradient by the weight is
        y.sum().backward()
    torch.testing.assert_close(places.given[linear.weight], x.sum(0).expand(3, 5) * SHARE, rtol=0, atol=1e-13)
    torch.testing.assert_close(h.grad, frozen.weight.sum(0).expand(7, 5), rtol=0, atol=1e-13)


def test_layers_of_several_modules_are_themselves_again_even_after_an_error() -> None:
    linear = layer()
    with pytest.raises(RuntimeError, match="shapes"), Placing([linear, nn.Sequential(linear)], Places(), SHARE):
        linear(rows(7, 4))
    assert "forward" not in vars(linear)


# In ff_ddp


def counted(folder: Path, monkeypatch: pytest.MonkeyPatch, model: LightningModule, **flags: Any) -> dict[str, Tensor]:
    """Weights of two processes after an epoch; each notes how many gradients it computed in their place."""
    count, plain = [0], placed._product

    def product(*arguments: Any) -> None:
        count[0] += 1
        plain(*arguments)

    def note(trainer: Trainer, learner: LightningModule) -> None:
        (folder / str(trainer.global_rank)).write_text(str(count[0]))

    monkeypatch.setattr(placed, "_product", product)
    callbacks = [Look(note), *flags.pop("callbacks", [])]
    return trained(model, 2, torch.float64, callbacks=callbacks, **flags)


def deep(**arguments: Any) -> LightningModule:
    """One block of three layers."""
    torch.manual_seed(0)
    sizes = [36, 9, 7, 8]
    parts = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return ForwardForward(CLASSES, SHAPE, blocks=[nn.Sequential(nn.Flatten(), *parts)], optimizer=PLAIN, **arguments)


class Freezing(Callback):
    """In each epoch, one more of the layers does not learn, and the one before learns again."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        linear = [module for module in pl_module.modules() if isinstance(module, nn.Linear)]
        for k, module in enumerate(linear):
            module.weight.requires_grad_(k != trainer.current_epoch)


def wide(**arguments: Any) -> LightningModule:
    return learner("pair", SGD, **arguments)


def convolutional(**arguments: Any) -> LightningModule:
    return learner("class", SGD, **arguments)


class Watching(Callback):
    """Might keep gradients."""

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
@pytest.mark.parametrize(
    ("build", "arguments", "each"),
    [
        (wide, {}, 3),
        (wide, {"step": "block"}, 3),
        (wide, {"backward": "summed"}, 3),
        (wide, {"accumulate_grad_batches": 2}, 0),
        (convolutional, {}, 1),
    ],
)
def test_two_processes_that_place_gradients_equal_one(
    build: Callable[..., LightningModule],
    arguments: dict[str, Any],
    each: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = trained(build(**arguments), 1, torch.float64)
    assert difference(one, counted(tmp_path, monkeypatch, build(**arguments))) <= 1e-9
    # the first of all tells sizes
    assert [int((tmp_path / str(rank)).read_text()) for rank in range(2)] == [each * (STEPS - 1)] * 2


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
def test_gradients_that_something_of_ones_own_may_keep_are_not_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted(tmp_path, monkeypatch, wide(), callbacks=[Watching()])
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["0", "0"]


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
def test_layers_that_stop_and_begin_again_to_learn_get_their_own_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trained(deep(), 1, torch.float64, callbacks=[Freezing()], max_epochs=4)
    two = counted(tmp_path, monkeypatch, deep(), callbacks=[Freezing()], max_epochs=4)
    assert difference(one, two) <= 1e-9
    # without the first batch of all, and the first of each epoch for a weight that learns again or has another shape
    assert all(2 * 4 * (STEPS - 1) <= int((tmp_path / str(rank)).read_text()) < 3 * 4 * STEPS for rank in range(2))


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
def test_a_gradient_that_a_hook_sees_is_not_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [wide(), wide()]
    for model in models:
        first = next(module for module in model.modules() if isinstance(module, nn.Linear))
        first.weight.register_hook(lambda gradient: 2 * gradient)
    one, two = trained(models[0], 1, torch.float64), counted(tmp_path, monkeypatch, models[1])
    assert difference(one, two) <= 1e-9
    assert [int((tmp_path / str(rank)).read_text()) for rank in range(2)] == [2 * (STEPS - 1)] * 2
