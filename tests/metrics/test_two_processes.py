"""Two gloo processes with uneven shares of the samples measure the same as one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import start_processes

from lightning_ff.metrics import ClassStatistics, balanced_indices, leave_one_out_ensemble

CLASSES, UNITS, N, CAP, BATCH = 5, 12, 101, 6, 16
# of whom is which sample: uneven; one process has all of a class; one has nothing at all
SPLITS = {"uneven": 37, "one class apart": None, "nothing": 0}

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")


def samples() -> tuple[Tensor, Tensor, Tensor]:
    """Activations, some of them dead, of which one unit is negative; labels, none of class 4; indices."""
    g = torch.Generator().manual_seed(0)
    label = torch.randint(CLASSES - 1, (N,), generator=g)
    h = (torch.randn(N, UNITS, generator=g) + label[:, None]).relu()
    h[::9], h[:, 3] = 0, 0
    h[1::2, 5] = -0.5 - torch.rand(N // 2, generator=g)
    return h, label, torch.randperm(5 * N, generator=g)[:N]


def share(rank: int, first: int | None) -> Tensor:
    """Positions of the samples of one process."""
    if first is None:
        return (samples()[1].eq(0) == (rank == 0)).nonzero()[:, 0]
    return torch.arange(N)[:first] if rank == 0 else torch.arange(N)[first:]


def statistics(h: Tensor, label: Tensor) -> dict[str, Tensor]:
    metric = ClassStatistics(CLASSES, UNITS)
    for rows, labels in zip(h.split(BATCH), label.split(BATCH), strict=True):
        metric.update(rows, labels)
    return metric.compute()


def choice(label: Tensor, index: Tensor) -> list[int]:
    """Indices that a process keeps; over several, of what all have kept."""
    kept = balanced_indices(label, CAP, index)
    if dist.is_initialized():
        shares: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(shares, (label[kept], index[kept]))
        label, index = (torch.cat(parts) for parts in zip(*shares, strict=True))
        kept = balanced_indices(label, CAP, index)
    return index[kept].tolist()


def process(rank: int, folder: str) -> None:
    """The function that runs in each of the two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    h, label, index = samples()
    found = {}
    for name, first in SPLITS.items():
        own = share(rank, first)
        found[name] = (len(own), statistics(h[own], label[own]), choice(label[own], index[own]))
    twice = torch.cat([share(rank, 37), torch.arange(20)])  # as samplers pad, and more
    found["twice"] = (len(twice), {}, choice(label[twice], index[twice]))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    start_processes(process, (str(folder),), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("split", SPLITS)
def test_statistics_are_those_of_one_process(found: list[dict[str, Any]], split: str) -> None:
    h, label, _ = samples()
    expected = statistics(h, label)
    assert expected["count"].tolist()[4] == 0
    assert int(expected["dead_units"]) == 1
    sizes = [each[split][0] for each in found]
    assert sum(sizes) == N
    assert sizes[0] != sizes[1]
    for each in found:
        assert each[split][1].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(each[split][1][name], value, atol=1e-6, rtol=0, equal_nan=True)
        members = [leave_one_out_ensemble(part["mean"], k=0.3) for part in (each[split][1], expected)]
        assert torch.equal(*members)
        assert members[0].any()


def test_the_streamed_extremes_and_means_are_the_samples(found: list[dict[str, Any]]) -> None:
    h, label, _ = samples()
    for each in found:
        of_all = each["uneven"][1]
        for c in range(CLASSES - 1):
            own = h[label == c].double()
            torch.testing.assert_close(of_all["highest"][c].double(), own.amax(0), atol=1e-6, rtol=0)
            torch.testing.assert_close(of_all["variance"][c], own.var(0, correction=0), atol=1e-6, rtol=0)
        for name, values in of_all.items():
            assert name in ("count", "dead_units") or bool(values[CLASSES - 1].isnan().all()), name


@pytest.mark.parametrize("split", [*SPLITS, "twice"])
def test_the_same_samples_are_chosen(found: list[dict[str, Any]], split: str) -> None:
    _, label, index = samples()
    expected = choice(label, index)
    assert len(expected) == CAP * (CLASSES - 1)
    for each in found:
        assert each[split][2] == expected
