"""Tensors averaged over processes by one flat all-reduce."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

from lightning_ff.strategies.reduction import Average

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")


def process(rank: int, work: Any, processes: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=processes)
    torch.save(work(rank), folder / f"{rank}.pt")
    dist.destroy_process_group()


def in_processes(work: Any, processes: int, folder: Path) -> list[Any]:
    """The results of a function in each of N processes."""
    start_processes(process, (work, processes, folder), processes, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(processes)]


def values(rank: int, time_: int) -> list[torch.Tensor]:
    """Tensors of several types, one that is not contiguous, and more of them from the fifth time on."""
    g = torch.Generator().manual_seed(100 * time_ + rank)
    drawn = torch.rand(4, 40, 50, generator=g, dtype=torch.float64)
    parts = [drawn[0].float(), drawn[1], drawn[2].float().t(), torch.tensor(float(rank)), drawn[3].half()]
    return parts if time_ < 5 else [*parts, torch.full((7,), float(time_))]


@pytest.mark.parametrize("processes", [2, 3])
def test_the_means_are_those_of_a_sum(processes: int, tmp_path: Path) -> None:
    def work(rank: int) -> list[list[torch.Tensor]]:
        average, found = Average(), []
        for time_ in range(8):
            given = values(rank, time_)
            average.start(given)
            for tensor in given:
                tensor.fill_(-1.0)  # tensors may be changed after `start`
            time.sleep(0.02 * ((rank + time_) % processes))  # another process is late each time
            found.append([mean.clone() for mean in average.wait()])
        return found

    results = in_processes(work, processes, tmp_path)
    for time_ in range(8):
        expected = [sum(each) / processes for each in zip(*(values(r, time_) for r in range(processes)), strict=True)]
        for rank in range(processes):
            for mean, right in zip(results[rank][time_], expected, strict=True):
                bounds = {"rtol": 3e-3, "atol": 1e-3} if mean.dtype == torch.float16 else {}
                torch.testing.assert_close(mean, right, **bounds)
            assert all(map(torch.equal, results[rank][time_], results[0][time_]))
