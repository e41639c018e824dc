"""BatchLoader without a Trainer: samples, their order, and cost."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from lightning_ff.data import Batch, BatchLoader


def make(n: int = 103, **arguments: Any) -> BatchLoader:
    images = torch.arange(n, dtype=torch.int32).to(torch.uint8).view(n, 1, 1, 1)
    return BatchLoader(images, torch.arange(n) * 7 % 5, **arguments)


def drawn(loader: BatchLoader) -> list[int]:
    return [number for batch in loader for number in batch.index.tolist()]


def test_a_batch_holds_the_stored_rows_of_its_index() -> None:
    loader = make(batch_size=10, shuffle=True)
    batches = list(loader)
    assert len(batches) == len(loader) == 11
    assert [len(batch.label) for batch in batches] == [10] * 10 + [3]
    for batch in batches:
        assert isinstance(batch, Batch)
        assert (batch.image.dtype, batch.label.dtype, batch.index.dtype) == (torch.float32, torch.int64, torch.int64)
        assert torch.equal(batch.image.view(-1), batch.index.float())
        assert torch.equal(batch.label, batch.index * 7 % 5)
    assert sorted(drawn(loader)) == list(range(103))


def test_without_shuffle_the_order_is_that_of_index() -> None:
    assert drawn(make(batch_size=8)) == list(range(103))
    index = torch.tensor([5, 80, 2, 2, 9])
    assert drawn(make(batch_size=2, index=index)) == index.tolist()


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        loader = make(batch_size=9, shuffle=True, seed=seed)
        loader.set_epoch(epoch)
        return drawn(loader)

    assert order(0, 1) == order(0, 1)
    orders = [tuple(order(seed, epoch)) for seed, epoch in itertools.product(range(4), range(4))]
    assert len(set(orders)) == 16

    loader = make(batch_size=9, shuffle=True)
    assert drawn(loader) == drawn(loader) == order(0, 0)
    for epoch in (3, 1):
        loader.set_epoch(epoch)
        assert drawn(loader) == order(0, epoch)


def test_two_loaders_never_touch_the_global_generator() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    for _ in zip(make(shuffle=True), make(shuffle=True, seed=5), strict=True):
        pass
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert drawn(make(shuffle=True)) == drawn(make(shuffle=True))


@pytest.mark.parametrize("drop_last", [False, True])
def test_training_ranks_share_an_epoch_evenly_and_without_overlap(drop_last: bool) -> None:
    ranks = [
        make(batch_size=8, shuffle=True, drop_last=drop_last, rank=rank, world_size=4, seed=3) for rank in range(4)
    ]
    seen = [drawn(loader) for loader in ranks]
    assert {len(loader) for loader in ranks} == {3 if drop_last else 4}
    assert {len(numbers) for numbers in seen} == {24 if drop_last else 25}
    together = [number for numbers in seen for number in numbers]
    assert len(set(together)) == len(together) == (96 if drop_last else 100)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 8])
def test_evaluation_ranks_cover_every_sample_exactly_once(world_size: int) -> None:
    seen = [drawn(make(batch_size=8, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(number for numbers in seen for number in numbers) == list(range(103))
    sizes = [len(numbers) for numbers in seen]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_unshuffled_training_ranks_are_even_when_asked() -> None:
    sizes = [len(drawn(make(rank=rank, world_size=4, even=True))) for rank in range(4)]
    assert sizes == [25] * 4


def test_a_batch_over_all_ranks_is_the_batch_of_one_process() -> None:
    one = [set(batch.index.tolist()) for batch in make(n=96, batch_size=24, shuffle=True)]
    ranks = [make(n=96, batch_size=6, shuffle=True, rank=rank, world_size=4) for rank in range(4)]
    many = [set().union(*(batch.index.tolist() for batch in parts)) for parts in zip(*ranks, strict=True)]
    assert many == one


def test_an_epoch_of_60000_images_makes_few_calls() -> None:
    calls: list[str] = []

    class Count(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(getattr(func, "__name__", str(func)))
            return func(*args, **(kwargs or {}))

    loader = BatchLoader(
        torch.zeros(60_000, 1, 4, 4, dtype=torch.uint8),
        torch.zeros(60_000, dtype=torch.int64),
        batch_size=100,
        shuffle=True,
        scale=lambda image: image.float().mul_(0.5).sub_(1),
    )
    with Count():
        assert sum(1 for _ in loader) == 600
    assert len(calls) <= 10 * 600
    assert sum(name == "__getitem__" for name in calls) <= 600 + 10


def test_batches_own_their_memory() -> None:
    stored = torch.rand(6, 1, 2, 2)
    loader = BatchLoader(stored, torch.arange(6), batch_size=3)
    before = stored.clone()
    for batch in loader:
        for part in batch:
            part.zero_()
    assert torch.equal(stored, before)
    assert drawn(loader) == list(range(6))


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("shuffle", [True, False])
def test_state_resumes_exactly(position: int, shuffle: bool) -> None:
    straight = make(n=20, batch_size=4, shuffle=shuffle)
    straight.set_epoch(2)
    expected = drawn(straight)

    first = make(n=20, batch_size=4, shuffle=shuffle)
    first.set_epoch(2)
    begun = [batch.index.tolist() for batch in itertools.islice(first, position)]
    second = make(n=20, batch_size=4, shuffle=shuffle)
    second.load_state_dict(first.state_dict())
    second.sampler.set_epoch(2)  # as Lightning does
    iter(second)  # iter() without a batch, as Lightning does too
    assert second.state_dict() == first.state_dict()
    assert [number for batch in begun for number in batch] + drawn(second) == expected
    assert len(second) == 5
    assert drawn(second) == expected  # only the first pass resumes
    second.sampler.set_epoch(3)
    assert len(drawn(second)) == 20


def test_state_of_a_finished_epoch_neither_skips_nor_repeats() -> None:
    first = make(n=20, batch_size=4, shuffle=True)
    batches = iter(first)
    for _ in range(5):  # Lightning does not request a sixth batch
        next(batches)
    second = make(n=20, batch_size=4, shuffle=True)
    second.load_state_dict(first.state_dict())
    assert drawn(second) == []
    second.load_state_dict(first.state_dict())
    second.set_epoch(1)
    first.set_epoch(1)
    assert drawn(second) == drawn(first)


def test_state_moves_to_more_processes_with_the_same_global_batch() -> None:
    one = make(n=96, batch_size=24, shuffle=True)
    begun = drawn_first(one, 1)
    ranks = [make(n=96, batch_size=6, shuffle=True, rank=rank, world_size=4) for rank in range(4)]
    for loader in ranks:
        loader.load_state_dict(one.state_dict())
    rest = [number for loader in ranks for number in drawn(loader)]
    assert sorted(begun + rest) == list(range(96))


def drawn_first(loader: BatchLoader, batches: int) -> list[int]:
    return [number for batch in itertools.islice(loader, batches) for number in batch.index.tolist()]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"n": 19}, "the checkpoint has samples=19, this loader has samples=20"),
        ({"batch_size": 5}, "the checkpoint has batch_size=5, this loader has batch_size=4"),
        ({"world_size": 2}, "the checkpoint has batch_size=8, this loader has batch_size=4"),
        ({"seed": 9}, "the checkpoint has seed=9, this loader has seed=0"),
        ({"shuffle": False}, "the checkpoint has seed=None, this loader has seed=0"),
    ],
)
def test_state_of_another_loader_is_refused(other: dict[str, Any], message: str) -> None:
    ours: dict[str, Any] = {"n": 20, "batch_size": 4, "shuffle": True}
    with pytest.raises(ValueError, match=message):
        make(**ours).load_state_dict(make(**{**ours, **other}).state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"batch_size=0 must be at least 1"),
        ({"seed": -1}, r"seed=-1 must be 0 or larger"),
        ({"rank": 2, "world_size": 2}, r"rank=2 must be in 0..1"),
        ({"shuffle": True, "world_size": 21}, r"world_size=21 is too many for 20 images"),
        ({"batch_size": 21, "drop_last": True}, r"batch_size=21 is more than the 20 images of a process: lower it or"),
        ({"index": torch.tensor([3, 20])}, r"index=20 must be in 0..19"),
        ({"index": torch.tensor([-1, 3])}, r"index=-1 must be in 0..19"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(n=20, **arguments)


def test_labels_must_fit_images() -> None:
    with pytest.raises(ValueError, match="labels='3 labels' must be 4, one an image"):
        BatchLoader(torch.zeros(4, 1), torch.zeros(3))
