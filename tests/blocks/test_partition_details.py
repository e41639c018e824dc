"""Finer points of partition: memory shared between values, buffers, parameters read in two places, patches."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ff.blocks import partition
from tests.blocks.partition_nets import Attention, Transformer


def batch(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Rectified(nn.Module):
    """A skip that an in-place module has changed."""

    def __init__(self, use: bool) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Linear(4, 4)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.act(x)
        return self.second(y if self.use else x) + x


def test_after_an_operation_in_place_there_is_one_tensor() -> None:
    for use in (True, False):
        model = Rectified(use)
        x = batch(3, 4)
        first, second = partition(model, ["act"])
        h = first(x)
        assert torch.equal(h, model.act(model.first(x)))
        assert torch.equal(second(h), model(x))


def test_views_of_what_is_handed_over_are_not_overwritten() -> None:
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Unflatten(1, (2, 2)), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(4, 2)
    )
    first, second = partition(model, ["0"])
    x = batch(3, 4)
    h = first(x)
    before = h.clone()
    assert torch.equal(second(h), model(x))
    assert torch.equal(h, before)


def test_a_cheap_start_is_not_copied() -> None:
    """The overwritten tensor is computed in the block itself."""
    blocks: Any = partition(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)))
    assert ["duplicate" in block.code for block in blocks] == [False, False]


def test_buffers_are_read_at_run_time() -> None:
    model = Transformer().eval()
    blocks = partition(model)
    x = batch(3, 5, 4)
    before = blocks(x)
    twins = [pickle.loads(pickle.dumps(blocks)), copy.deepcopy(blocks), blocks]
    for twin in twins:
        for block in twin:
            for buffer in block.buffers():
                buffer.mul_(-3)
    assert all(torch.equal(twin(x), model(x)) for twin in twins)
    assert not torch.equal(before, model(x))


class Reading(nn.Module):
    """Reads a parameter before its code turns out to depend on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.linear.weight.mean()
        return self.linear(x) * scale if x.sum() > 0 else self.linear(x)


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Reading()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x) * self.body.linear.weight.mean())


def test_a_parameter_read_in_and_beside_a_module_that_is_kept_whole() -> None:
    model = Reads()
    blocks = partition(model)
    assert blocks.names == ["body", "head"]
    x = batch(3, 4)
    assert torch.equal(blocks(x), model(x))
    assert list(blocks[0].state_dict()) == ["body.linear.weight", "body.linear.bias"]


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 2, 2)
        self.register_buffer("mask", torch.zeros(4, 4))
        self.blocks = nn.ModuleList(Attention() for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, self.mask)
        return self.head(x.mean(1))


def test_residual_modules_take_nothing_from_around_them() -> None:
    model = Patches().eval()
    blocks = partition(model, input_shape=(1, 4, 4))
    assert blocks.modules_of == [["conv", "flatten()", "transpose()"], ["blocks.0"], ["blocks.1"], ["mean()", "head"]]
    x = batch(3, 1, 4, 4)
    assert torch.equal(blocks(x), model(x))


class Shapes(nn.Module):
    """Sizes of an early tensor are used late: not the batch size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 2, 3, 2, 1)
        self.up = nn.Conv2d(2, 1, 3, 1, 1)
        self.last = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        x = self.up(self.down(x).relu())
        return self.last(nn.functional.interpolate(x, size=size))


def test_sizes_of_an_early_tensor() -> None:
    """The input itself stays alive for its sizes, so there is one cut where they are no longer needed."""
    model = Shapes()
    x = batch(2, 1, 6, 6)
    assert partition(model).names == ["down..up", "last"]
    assert partition(model, "layers").names == ["down", "up", "last"]
    for cuts in ("blocks", "layers"):
        for size in (6, 8):
            x = batch(2, 1, size, size)
            assert torch.equal(partition(model, cuts)(x), model(x))  # type: ignore[arg-type]


def test_hooks_and_parametrizations_of_layers_stay() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2))
    seen: list[torch.Size] = []
    model[2].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    x = batch(3, 4)
    blocks = partition(model)
    assert not seen
    assert torch.equal(blocks(x), model(x))
    assert seen == [(3, 2), (3, 2)]
    assert len(list(blocks[0].parameters())) == 3
