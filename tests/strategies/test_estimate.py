"""The estimate of scaling against what it must be at its ends."""

from __future__ import annotations

from math import inf

import pytest

from tests.benchmarks.estimate import Job, backprop_ddp, ff_ddp, ff_pipeline


@pytest.mark.parametrize("processes", [8, 64, 512])
def test_links_without_end_leave_the_computation(processes: int) -> None:
    job = Job(near=inf, far=inf)
    for estimate in (ff_ddp, backprop_ddp, ff_pipeline):
        assert estimate(job, processes) == pytest.approx(1.0)
    assert ff_ddp(job, processes, job.blocks) == pytest.approx(1.0)


def test_slow_links_leave_the_messages() -> None:
    job = Job(near=1e6, far=1e6)
    block, message = job.compute(2), job.average(64)
    assert message > 100 * block
    assert ff_ddp(job, 64) == pytest.approx(32 * block / (block + 32 * message))
    assert ff_ddp(job, 64, 32) == pytest.approx(ff_ddp(job, 64) / 32, rel=0.01)
    assert backprop_ddp(job, 64) == pytest.approx(32 * 1.5 * block / (17 * block + 32 * message))


def test_a_pipeline_sends_the_gradients_of_its_own_blocks_only() -> None:
    job = Job(far=1e6)
    assert ff_pipeline(job, 8) == pytest.approx(1.0)
    assert ff_pipeline(job, 512) / ff_ddp(job, 512) == pytest.approx(8 * (511 / 512) / (63 / 64), rel=0.02)


def test_messages_as_long_as_blocks_leave_the_last_one() -> None:
    job = Job()
    alike = Job(far=job.far * job.average(64) / job.compute(2))
    assert ff_ddp(alike, 64) == pytest.approx(32 / 33)
