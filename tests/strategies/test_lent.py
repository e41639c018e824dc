"""Means of gradients that all processes read in one place, and when each gets its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import DoublePrecision
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from lightning_ff import CosineToEnd, LocalDDPStrategy
from lightning_ff.strategies.late import only_reads
from tests.strategies.runs import Look, difference, learner, trained

FUSED: list[tuple[type[Optimizer], dict[str, Any]]] = [
    (SGD, {}),
    (SGD, {"momentum": 0.9, "weight_decay": 0.1, "dampening": 0.2, "maximize": True}),
    (SGD, {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
    (Adam, {"weight_decay": 0.1, "amsgrad": True}),
    (Adam, {"maximize": True}),
    (AdamW, {"amsgrad": True, "maximize": True}),
    (AdamW, {}),
]


@pytest.mark.parametrize(("kind", "arguments"), FUSED)
def test_fused_steps_leave_gradients_as_they_are(kind: type[Optimizer], arguments: dict[str, Any]) -> None:
    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(*shape, generator=g).requires_grad_() for shape in [(40, 30), (7,)]]
    optimizer = kind(weights, lr=0.1, fused=True, **arguments)  # type: ignore[call-arg]
    assert only_reads(optimizer)
    for _ in range(4):
        before = [weight.detach().clone() for weight in weights]
        gradients = [torch.randn(weight.shape, generator=g) for weight in weights]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
        for weight, gradient, was in zip(weights, gradients, before, strict=True):
            assert weight.grad is not None
            assert torch.equal(weight.grad, gradient)
            assert not torch.equal(weight, was)


def halve(optimizer: Optimizer, *arguments: Any) -> None:
    """Write to gradients."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.mul_(0.5)


class Halving(SGD):
    """Writes to gradients."""

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        halve(self)
        return super().step(closure)


def hooked(parameters: Any) -> Optimizer:
    """Its hook writes to gradients."""
    optimizer = SGD(parameters, lr=0.1, fused=True)
    optimizer.register_step_pre_hook(halve)
    return optimizer


def replaced(parameters: Any) -> Optimizer:
    """Its step is another one, which writes to gradients."""
    optimizer = SGD(parameters, lr=0.1, fused=True)
    plain = optimizer.step

    @wraps(plain)
    def step(*arguments: Any, **named: Any) -> Any:
        halve(optimizer)
        return plain(*arguments, **named)

    optimizer.step = step  # type: ignore[method-assign]
    return optimizer


OTHERS: dict[str, Callable[[Any], Optimizer]] = {
    "of one's own": partial(Halving, lr=0.1, fused=True),
    "with a hook": hooked,
    "with another step": replaced,
    "not fused": partial(SGD, lr=0.1, foreach=True, momentum=0.9, nesterov=True),
    "not known": partial(RMSprop, lr=0.01),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_other_steps_may_write_to_gradients(make: Callable[[Any], Optimizer]) -> None:
    assert not only_reads(make([torch.zeros(3, requires_grad=True)]))


class Asking(LocalDDPStrategy):
    """Notes whether gradients of a step lie where other processes see them."""

    def __init__(self) -> None:
        super().__init__(start_method="fork", process_group_backend="gloo")
        self.lent: list[bool] = []

    def optimizer_step(self, optimizer: Optimizer, *arguments: Any, **named: Any) -> Any:
        result = super().optimizer_step(optimizer, *arguments, **named)
        averages: list[Any] = [*self._averages.values()]
        seen = {
            t.untyped_storage().data_ptr() for each in averages for of_kind in each._shared.values() for t in of_kind
        }
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.lent += [gradient.untyped_storage().data_ptr() in seen for gradient in gradients]
        return result


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
@pytest.mark.parametrize(
    ("arguments", "lent"),
    [
        ({"optimizer": partial(SGD, lr=0.1, momentum=0.9)}, {True}),
        ({"optimizer": partial(AdamW, lr=0.01)}, {True}),
        ({"optimizer": partial(AdamW, lr=0.01), "step": "block"}, {True}),
        ({"optimizer": partial(SGD, lr=0.1), "scheduler": CosineToEnd, "scheduler_interval": "step"}, {True}),
        ({"optimizer": partial(SGD, lr=0.1), "gradient_clip_val": 0.05}, {False}),
        *(({"optimizer": make}, {False}) for make in OTHERS.values()),
    ],
)
def test_two_processes_equal_one_and_share_what_is_only_read(
    arguments: dict[str, Any], lent: set[bool], tmp_path: Path
) -> None:
    def note(trainer: Trainer, module: LightningModule) -> None:
        torch.save(trainer.strategy.lent, tmp_path / str(trainer.global_rank))  # type: ignore[union-attr, attr-defined]

    one = trained(learner("pair", **arguments), 1, torch.float64)
    two = trained(learner("pair", **arguments), 2, torch.float64, strategy=Asking(), callbacks=[Look(note)])
    assert difference(one, two) <= 1e-9
    for rank in range(2):
        noted = torch.load(tmp_path / str(rank))
        assert len(noted) >= 3
        assert set(noted) == lent


class Hooking(Callback):
    """Has gradients of all blocks written to before a step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.optimizers[0].register_step_pre_hook(halve)


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
def test_a_hook_of_all_steps_sees_the_gradients_that_it_sees_in_one_process() -> None:
    one, two = (trained(learner("pair"), n, torch.float64, callbacks=[Hooking()]) for n in (1, 2))
    assert difference(one, two) <= 1e-9
    assert difference(one, trained(learner("pair"), 1, torch.float64)) > 1e-3


class Halfway(DoublePrecision):
    """A precision of one's own that writes to gradients."""

    def optimizer_step(self, optimizer: Any, *arguments: Any, **named: Any) -> Any:
        halve(optimizer)
        return super().optimizer_step(optimizer, *arguments, **named)


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
def test_gradients_that_a_precision_writes_to_are_each_processs_own() -> None:
    halved = (trained(learner("pair"), n, torch.float64, plugins=[Halfway()], precision=None) for n in (1, 2))
    one, two = halved
    assert difference(one, two) <= 1e-9
    assert difference(one, trained(learner("pair"), 1, torch.float64)) > 1e-3
