"""Averages through memory that processes of one machine share."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from lightning_ff.strategies.bell import hang
from lightning_ff.strategies.reduction import Average
from lightning_ff.strategies.shared import SharedAverage, _view, near, share

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not dist.is_gloo_available(), reason="needs Linux, and torch with gloo"
)


def begin(work: Any, rank: int, processes: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=processes)
    torch.save(work(rank), folder / f"{rank}.pt")
    dist.destroy_process_group()


def together(work: Any, processes: int, folder: Path) -> list[Any]:
    """What a function gives in each of so many processes."""
    context = get_context("fork")
    running = [context.Process(target=begin, args=(work, rank, processes, folder)) for rank in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
    assert [process.exitcode for process in running] == [0] * processes
    return [torch.load(folder / f"{rank}.pt") for rank in range(processes)]


def values(rank: int, time_: int) -> list[torch.Tensor]:
    """Tensors of two types, one that does not lie in order, and more of them from the fifth time on."""
    g = torch.Generator().manual_seed(100 * time_ + rank)
    drawn = torch.rand(4, 40, 50, generator=g, dtype=torch.float64)
    parts = [drawn[0].float(), drawn[1], drawn[2].float().t(), torch.tensor(float(rank)), drawn[3].half()]
    return parts if time_ < 5 else [*parts, torch.full((7,), float(time_))]


def shared() -> SharedAverage:
    found = near()
    assert found is not None
    return SharedAverage(found)


@pytest.mark.parametrize("kind", [Average, shared])
@pytest.mark.parametrize("processes", [2, 3])
def test_the_means_are_those_of_a_sum(kind: Callable[[], Average], processes: int, tmp_path: Path) -> None:
    def work(rank: int) -> list[list[torch.Tensor]]:
        average, found = kind(), []
        for time_ in range(8):
            given = values(rank, time_)
            average.start(given)
            for tensor in given:
                tensor.fill_(-1.0)  # what has been started may be changed
            time.sleep(0.02 * ((rank + time_) % processes))  # now this one is late, now that one
            found.append([mean.clone() for mean in average.wait()])
        return found

    results = together(work, processes, tmp_path)
    for time_ in range(8):
        expected = [sum(each) / processes for each in zip(*(values(r, time_) for r in range(processes)), strict=True)]
        for rank in range(processes):
            for mean, right in zip(results[rank][time_], expected, strict=True):
                bounds = {"rtol": 3e-3, "atol": 1e-3} if mean.dtype == torch.float16 else {}
                torch.testing.assert_close(mean, right, **bounds)
            assert all(map(torch.equal, results[rank][time_], results[0][time_]))


@pytest.mark.parametrize(("processes", "expected"), [(1, False), (2, True), (4, True), (5, False)])
def test_a_few_processes_of_one_machine_are_near(processes: int, expected: bool, tmp_path: Path) -> None:
    assert together(lambda rank: near() is not None, processes, tmp_path) == [expected] * processes


def refuse(name: str) -> int:
    raise OSError("not permitted")


def test_all_know_if_one_cannot_share(tmp_path: Path) -> None:
    def work(rank: int) -> tuple[bool, bool]:
        if rank == 1:
            os.memfd_create = refuse
        return near() is not None, share(64, torch.float32) is None

    assert together(work, 3, tmp_path) == [(False, True)] * 3


def test_where_memory_cannot_be_had_messages_go(tmp_path: Path) -> None:
    def work(rank: int) -> list[torch.Tensor]:
        average = shared()
        first = average.start([torch.full((2,), float(rank))]).wait()[0].clone()
        os.memfd_create = refuse
        for _ in range(3):
            more = average.start([torch.full((3,), 4.0 * rank), torch.ones(0, dtype=torch.float64)]).wait()
        return [first, *(mean.clone() for mean in more)]

    for first, second, empty in together(work, 2, tmp_path):
        assert first.tolist() == [0.5, 0.5]
        assert second.tolist() == [2.0, 2.0, 2.0]
        assert empty.numel() == 0


def test_a_path_that_names_something_else_is_not_read() -> None:
    file = os.memfd_create("mine")
    path = f"/proc/{os.getpid()}/fd/{file}"
    view = _view(path, "mine", 64, torch.uint8)
    os.pwrite(file, b"abc", 5)
    assert view[5:8].tolist() == [*b"abc"]
    with pytest.raises(ValueError, match="is not yours"):
        _view(path, "yours", 64, torch.uint8)
    os.close(file)


def test_no_file_stays_open(tmp_path: Path) -> None:
    def work(rank: int) -> int:
        before = len(os.listdir("/proc/self/fd"))
        views = share(4096, torch.float32)
        assert views is not None
        return len(os.listdir("/proc/self/fd")) - before

    assert together(work, 2, tmp_path) == [0, 0]


def test_shares_may_be_laid_beforehand(tmp_path: Path) -> None:
    def work(rank: int) -> list[Any]:
        average, found = shared(), []
        like = [torch.empty(2, 3), torch.empty(4, dtype=torch.float64), torch.empty(5)]
        assert average.ahead(like) == []
        average.start([torch.zeros_like(each) for each in like])
        for time_ in range(4):
            assert average.ahead(like) == []  # others may still read there
            found.append([mean[-1].sum().item() for mean in average.wait()])
            assert average.ahead(like[:2]) == []
            assert average.ahead([torch.empty(3, 2), *like[1:]]) == []
            assert average.ahead([like[0].double(), *like[1:]]) == []
            first, second, _ = average.ahead(like)
            first.fill_(rank + time_)
            second.fill_(10.0 * rank)
            average.start([first, second, torch.full((5,), 100.0 * rank + time_)])
            second.fill_(20.0 * rank)  # nothing was copied
            dist.barrier()
        return [*found, [mean[-1].sum().item() for mean in average.wait()]]

    # sums of what was laid beforehand, and the mean of the rest
    expected = [[0.0, 0.0, 0.0], *([3.0 * (2 * t + 1), 20.0, 50.0 + t] for t in range(4))]
    assert together(work, 2, tmp_path) == [expected] * 2


def test_one_process_makes_a_mean_and_all_read_it(tmp_path: Path) -> None:
    def work(rank: int) -> list[Any]:
        found, made = near(), []
        assert found is not None
        averages = SharedAverage(found), SharedAverage(found)
        for time_ in range(6):
            for average in averages:  # as blocks do whose steps are put off
                average.start([torch.full((5,), 4.0 * rank + time_), torch.full((2,), float(rank)).double()])
            for average in averages:
                one, other = average.wait()
                made.append((one.tolist(), other.tolist()))
                dist.barrier()
                if rank == (time_ % 3):
                    one.fill_(-1.0)
                dist.barrier()
                made.append(one.tolist())
        return made

    results = together(work, 3, tmp_path)
    expected = [each for t in range(6) for _ in range(2) for each in (([4.0 + t] * 5, [1.0, 1.0]), [-1.0] * 5)]
    for made in results:
        assert len(made) == len(expected)
        for found, right in zip(made, expected, strict=True):
            for one, other in zip(found, right, strict=True):
                assert one == pytest.approx(other, abs=1e-6)


# The word that something is there


def test_who_has_heard_a_ring_knows_that_all_others_have_rung(tmp_path: Path) -> None:
    def work(rank: int) -> list[bool]:
        bell, found = hang(), []
        assert bell is not None
        for time_ in range(6):
            if time_ % 3 == rank:
                time.sleep(0.05)
            (tmp_path / f"{rank}-{time_}").touch()
            ring = bell.ring()
            if time_ % 2:  # or later: a ring is not lost
                ring.wait()
                found += [(tmp_path / f"{other}-{t}").exists() for other in range(3) for t in range(time_ + 1)]
        dist.barrier()
        bell.close()
        return found

    assert together(work, 3, tmp_path) == [[True] * (6 + 12 + 18)] * 3


def test_who_waits_for_one_that_has_ended_or_is_late_is_told(tmp_path: Path) -> None:
    def work(rank: int) -> list[str]:
        late, gone = hang(timeout=timedelta(seconds=0.1)), hang()
        assert late is not None
        assert gone is not None
        said = []
        if rank == 0:
            for act in (partial(late.listen, 1), partial(gone.listen, 1), gone.ring):
                with pytest.raises(RuntimeError) as error:
                    act()
                said.append(str(error.value))
        else:
            gone.close()
        dist.barrier()
        return said

    assert together(work, 2, tmp_path)[0] == [
        "process 1 was not ready within 0:00:00.100000",
        *["process 1, which this one shares memory with, has ended"] * 2,
    ]
