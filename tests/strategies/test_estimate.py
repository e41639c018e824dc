"""The estimate of scaling against closed forms in its limits."""

from __future__ import annotations

from math import inf

import pytest

from tests.benchmarks.estimate import Job, backprop_ddp, ff_ddp, ff_pipeline, find_unused, step

ESTIMATES = (ff_ddp, find_unused, backprop_ddp, ff_pipeline)


@pytest.mark.parametrize("processes", [8, 64, 512])
def test_infinitely_fast_links_leave_the_computation(processes: int) -> None:
    job = Job(near=inf, far=inf, interval=10**9)
    for estimate in ESTIMATES:
        assert estimate(job, processes) == pytest.approx(1.0)


def test_slow_links_leave_the_messages() -> None:
    job = Job(near=1e6, far=1e6)
    block, message = job.compute(2), job.average(64)
    assert message > 100 * block
    assert ff_ddp(job, 64) == pytest.approx(32 * block / (block + 32 * message))
    assert find_unused(job, 64) == pytest.approx(32 * block / (block + 32 * 32 * message))
    assert backprop_ddp(job, 64) == pytest.approx(32 * 1.5 * block / (17 * block + 32 * message))


def test_messages_as_long_as_blocks_leave_the_last_one() -> None:
    job = Job()
    alike = Job(far=job.far * job.average(64) / job.compute(2))
    assert ff_ddp(alike, 64) == pytest.approx(32 / 33)


def test_a_pipeline_sends_the_gradients_of_its_own_blocks_only() -> None:
    job = Job(far=1e6, interval=10**9)
    assert ff_pipeline(job, 8) == pytest.approx(1.0)
    assert ff_pipeline(job, 512) / ff_ddp(job, 512) == pytest.approx(8 * (511 / 512) / (63 / 64), rel=0.02)


@pytest.mark.parametrize(("interval", "want"), [(1, 1 / 8), (50, 50 / 57)])
def test_a_pipeline_drains_and_fills_at_log_intervals(interval: int, want: float) -> None:
    assert ff_pipeline(Job(interval=interval), 8) == pytest.approx(want)


# in the second the link is busy from the first message on; in the third it waits for the second block
@pytest.mark.parametrize(
    ("blocks", "block", "message", "want"), [(1, 2.0, 3.0, 5.0), (2, 2.0, 3.0, 8.0), (2, 3.0, 2.0, 8.0), (3, 3, 0, 9)]
)
def test_the_step_waits_for_all_messages(blocks: int, block: float, message: float, want: float) -> None:
    assert step(blocks, block, message) == pytest.approx(want)
    assert step(blocks, block, message, start=1.5) == pytest.approx(1.5 + want)
