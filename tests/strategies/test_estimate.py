"""The estimate of scaling against its limits."""

from __future__ import annotations

from math import inf

import pytest

from tests.benchmarks.estimate import Job, backprop_ddp, ff_ddp, ff_pipeline, find_unused, period


@pytest.mark.parametrize("processes", [8, 64, 512])
def test_links_without_end_leave_the_computation(processes: int) -> None:
    job = Job(near=inf, far=inf)
    for estimate in (ff_ddp, find_unused, backprop_ddp, ff_pipeline):
        assert estimate(job, processes) == pytest.approx(1.0)


def test_slow_links_leave_the_messages() -> None:
    job = Job(near=1e6, far=1e6)
    block, message = job.compute(2), job.average(64)
    assert message > 100 * block
    assert ff_ddp(job, 64) == pytest.approx(block / message)
    assert find_unused(job, 64) == pytest.approx(block / (32 * message), rel=0.01)
    assert backprop_ddp(job, 64) == pytest.approx(32 * 1.5 * block / (17 * block + 32 * message))


def test_a_pipeline_sends_the_gradients_of_its_own_blocks_only() -> None:
    job = Job(far=1e6)
    assert ff_pipeline(job, 8) == pytest.approx(1.0)
    assert ff_pipeline(job, 512) / ff_ddp(job, 512) == pytest.approx(8 * (511 / 512) / (63 / 64), rel=0.02)


def test_messages_as_long_as_blocks_cost_nothing() -> None:
    job = Job()
    alike = Job(far=job.far * job.average(64) / job.compute(2))
    assert ff_ddp(alike, 64) == pytest.approx(1.0)


def test_one_block_waits_for_its_own_message() -> None:
    assert period(1, 2.0, 3.0) == pytest.approx(5.0)
    assert period(2, 2.0, 3.0) == pytest.approx(6.0)  # a link without a pause
    assert period(2, 3.0, 2.0) == pytest.approx(6.0)  # blocks without a pause
