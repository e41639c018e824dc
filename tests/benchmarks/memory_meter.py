"""Counting what autograd keeps for backward, and which gradients are alive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


@dataclass
class Meter:
    """Bytes alive now and at the worst moment."""

    now: int = 0
    peak: int = 0
    users: dict[int, int] = field(default_factory=dict)

    def add(self, key: int, size: int) -> None:
        self.users[key] = self.users.get(key, 0) + 1
        if self.users[key] == 1:
            self.now += size
            self.peak = max(self.peak, self.now)

    def drop(self, key: int, size: int) -> None:
        self.users[key] -= 1
        if not self.users[key]:
            self.now -= size
            del self.users[key]


class _Held:
    """A saved tensor; its storage counts once however often it is saved, until the graph frees all."""

    def __init__(self, tensor: Tensor, meter: Meter, counted: bool) -> None:
        storage = tensor.untyped_storage()
        self.tensor, self.meter, self.counted = tensor, meter, counted
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        if counted:
            meter.add(self.key, self.size)

    def __del__(self) -> None:
        if self.counted:
            self.meter.drop(self.key, self.size)


@contextmanager
def saved_for_backward(model: nn.Module) -> Iterator[Meter]:
    """Bytes that autograd saves inside the context, parameters excluded."""
    meter = Meter()
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: Tensor) -> _Held:
        return _Held(tensor, meter, tensor.untyped_storage().data_ptr() not in parameters)

    with saved_tensors_hooks(pack, lambda held: held.tensor):
        yield meter


@contextmanager
def gradients_alive(model: nn.Module) -> Iterator[Meter]:
    """Bytes of gradients alive whenever one has been accumulated."""
    meter = Meter()
    parameters = list(model.parameters())

    def count(_: Any) -> None:
        alive = sum(p.grad.nbytes for p in parameters if p.grad is not None)
        meter.peak = max(meter.peak, alive)

    handles = [p.register_post_accumulate_grad_hook(count) for p in parameters if p.requires_grad]
    yield meter
    for handle in handles:
        handle.remove()
