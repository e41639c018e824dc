"""Work that processes have in common, done by one of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch.distributed as dist

from lightning_ff.strategies.once import Desk, Once, desk
from lightning_ff.strategies.shared import near
from tests.strategies.test_shared import refuse, together

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not dist.is_gloo_available(), reason="needs Linux, and torch with gloo"
)


def at_desk() -> Desk:
    found = desk()
    assert found is not None
    return found


def test_each_work_is_done_once_and_then_it_is_done_for_all(tmp_path: Path) -> None:
    def work(rank: int) -> list[str]:
        found = at_desk()
        kinds, seen = {"a": found.once(), "b": found.once()}, []
        for time_ in range(1, 30):
            time.sleep(0.002 * ((rank + time_) % 3))  # now this one is first, now that one
            for kind, once in kinds.items():
                file = tmp_path / f"{kind}{time_}"
                with once.first(time_) as needed:
                    if needed:
                        time.sleep(0.002)
                        with file.open("a") as done:
                            done.write(str(rank))
                seen.append(file.read_text())
        found.close()
        return seen

    first, *others = together(work, 3, tmp_path)
    assert len(first) == 58
    assert all(len(who) == 1 for who in first)
    assert len(set(first)) > 1
    assert others == [first, first]


def test_two_works_do_not_wait_for_each_other(tmp_path: Path) -> None:
    def work(rank: int) -> bool:
        found = at_desk()
        first, second = found.once(), found.once()
        dist.barrier()
        with (first, second)[rank].first(1) as needed:
            dist.barrier()  # inside of both at once
        return needed

    assert together(work, 2, tmp_path) == [True, True]


def begin(file: int, ended: bool) -> None:
    """Begin with work, and come to no end of it."""
    with Once(file, 8).first(3):
        os.kill(os.getpid(), signal.SIGKILL) if ended else sys.exit(1)


@pytest.mark.parametrize("ended", [True, False])
def test_work_that_somebody_left_half_done_is_an_error(ended: bool) -> None:
    file = os.memfd_create("desk")
    once, other = Once(file, 8), Once(file, 0)
    with once.first(2) as needed:
        assert needed
    process = get_context("fork").Process(target=begin, args=(file, ended))
    process.start()
    process.join(60)
    assert process.exitcode == (-signal.SIGKILL if ended else 1)
    with pytest.raises(RuntimeError, match="failed in the middle"), once.first(3):
        pytest.fail("must not be reached")
    with other.first(1) as needed:
        assert needed
    os.close(file)


def hold(file: int) -> None:
    """Work that takes too long."""
    with Once(file, 8).first(1):
        os.pwrite(file, b"begun", 100)
        time.sleep(60)


def test_who_waits_too_long_for_the_work_is_told() -> None:
    file = os.memfd_create("desk")
    process = get_context("fork").Process(target=hold, args=(file,))
    process.start()
    while os.pread(file, 5, 100) != b"begun":
        time.sleep(0.01)
    with (
        pytest.raises(RuntimeError, match="not ready within"),
        Once(file, 8, timedelta(seconds=0.2)).first(1),
    ):
        pytest.fail("must not be reached")
    process.kill()
    process.join()
    os.close(file)


def test_all_know_if_one_does_not_see_the_desk(tmp_path: Path) -> None:
    def work(rank: int) -> tuple[bool, int]:
        before = len(os.listdir("/proc/self/fd"))
        if rank == 1:
            os.readlink = lambda path: "of another machine"  # type: ignore[assignment]
        found = desk()
        return found is None, len(os.listdir("/proc/self/fd")) - before

    assert together(work, 3, tmp_path) == [(True, 0)] * 3


def test_without_memory_there_is_no_desk(tmp_path: Path) -> None:
    def work(rank: int) -> list[bool]:
        os.memfd_create = refuse
        found = [desk() is None, near() is None]
        del os.memfd_create  # not every Python has it
        return [*found, desk() is None, near() is None]

    assert together(work, 2, tmp_path) == [[True] * 4] * 2
