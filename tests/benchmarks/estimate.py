"""Expected efficiency of many processes, from compute and link speeds: an estimate, not a measurement.

    python -m tests.benchmarks.estimate
    python -m tests.benchmarks.estimate --flops 400e12 --near 300e9 --far 40e9 --blocks 32 --width 8192 --rows 8192

The network is a stack of equal fully connected blocks; a row is one input, and pair mode has two per sample. Every
process has `rows` of them, and a pipeline as many as its processes together. The forward pass of a block costs 2
width^2 operations per row, the gradient of its weights as much again, and backprop the gradient of its input on top.
Weights, gradients and activations have two bytes per number.

A link carries one message at a time: an all-reduce over N processes takes 2 (N - 1) / N of its bytes, at the speed of
the slowest link (`far` from nine processes on). A message starts when its gradients have been computed and the message
before it has arrived. The optimizer steps at the end of the sweep, when all messages have arrived. A pipeline drains
and fills again at each log interval of `interval` batches, which takes as many batches of time as it has stages less
one. The time of the optimizer step, kernel launches, latency and stragglers are left out.

The output is the efficiency: time of a step without messages and log intervals, divided by the time of the step.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

BYTES, NODE = 2, 8


@dataclass(frozen=True)
class Job:
    """Speeds in operations and bytes per second, the size of blocks and batches of a process, and the log interval."""

    flops: float = 400e12
    near: float = 300e9
    far: float = 40e9
    blocks: int = 32
    width: int = 8192
    rows: int = 8192
    interval: int = 50

    def compute(self, passes: int) -> float:
        """Seconds of this number of passes of a block over all rows."""
        return passes * 2 * self.width**2 * self.rows / self.flops

    def average(self, processes: int, blocks: int = 1) -> float:
        """Seconds of the all-reduce of the gradients of blocks."""
        speed = self.near if processes <= NODE else self.far
        return 2 * (processes - 1) / processes * blocks * self.width**2 * BYTES / speed


def step(blocks: int, block: float, message: float, start: float = 0.0) -> float:
    """Seconds until the last message has arrived, where every block sends one when its `block` seconds are over."""
    free = start
    for k in range(blocks):
        free = max(free, start + (k + 1) * block) + message
    return free


def ff_ddp(job: Job, processes: int) -> float:
    """Efficiency with one message per block, sent while the next blocks run."""
    block = job.compute(2)
    return job.blocks * block / step(job.blocks, block, job.average(processes))


def find_unused(job: Job, processes: int) -> float:
    """Efficiency where every block sends the gradients of the whole network."""
    block = job.compute(2)
    return job.blocks * block / step(job.blocks, block, job.average(processes, job.blocks))


def backprop_ddp(job: Job, processes: int) -> float:
    """Efficiency of backprop, whose messages start with the backward pass of the last block."""
    forward = job.blocks * job.compute(1)
    return job.blocks * job.compute(3) / step(job.blocks, job.compute(2), job.average(processes), forward)


def ff_pipeline(job: Job, processes: int) -> float:
    """Efficiency of a pipeline in each node, at the same rows of the whole job, averaged over the pipelines."""
    stages = min(processes, NODE, job.blocks)
    own, copies = -(-job.blocks // stages), processes // stages
    block = stages * job.compute(2)
    message = 2 * (copies - 1) / copies * job.width**2 * BYTES / job.far
    activations = stages * job.rows * job.width * BYTES / job.near
    batch = max(step(own, block, message), activations) * (job.interval + stages - 1) / job.interval
    return job.blocks * job.compute(2) / batch


def main() -> None:
    job = Job()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in vars(job).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    job = Job(**vars(parser.parse_args()))
    print("processes  ff_ddp  find_unused  backprop ddp  ff_pipeline")
    for processes in (8, 64, 512):
        found = (
            ff_ddp(job, processes),
            find_unused(job, processes),
            backprop_ddp(job, processes),
            ff_pipeline(job, processes),
        )
        print(f"{processes:9d}  {found[0]:6.2f}  {found[1]:11.2f}  {found[2]:12.2f}  {found[3]:11.2f}")


if __name__ == "__main__":
    main()
