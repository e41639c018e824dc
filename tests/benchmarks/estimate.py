"""Estimated scaling to many processes, from compute and link speeds, without a measurement.

    python -m tests.benchmarks.estimate
    python -m tests.benchmarks.estimate --flops 400e12 --near 300e9 --far 40e9 --blocks 32 --width 8192 --rows 8192

The network has N equal fully connected blocks; a row is one input, and pair mode has two per sample. Every process
has `rows` of them, and a pipeline as many as its processes together. A block's forward pass costs 2 width^2 operations
a row, the gradient of its weights as much again, and backprop the gradient of its input on top. Weights, gradients and
activations have two bytes a number.

A link carries one message at a time: an average over N processes takes 2 (N - 1) / N of its bytes, at the speed of the
slowest link (`far` from nine processes on). A message starts when its gradients are there and the one before is
through. With Lightning's `ddp` the step ends with the last message; with `ff_ddp`, and between pipelines, a block waits
for its message when it runs again. The optimizer, kernel launches, latency and stragglers are left out.

Printed is the efficiency: time of a step without any message, over time of the step.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

BYTES, NODE = 2, 8


@dataclass(frozen=True)
class Job:
    """Speeds in operations and bytes per second, and the size of blocks and batches of a process."""

    flops: float = 400e12
    near: float = 300e9
    far: float = 40e9
    blocks: int = 32
    width: int = 8192
    rows: int = 8192

    def compute(self, passes: int) -> float:
        """Seconds of N passes of a block over all rows."""
        return passes * 2 * self.width**2 * self.rows / self.flops

    def average(self, processes: int, blocks: int = 1) -> float:
        """Seconds of the messages with the gradients of blocks."""
        speed = self.near if processes <= NODE else self.far
        return 2 * (processes - 1) / processes * blocks * self.width**2 * BYTES / speed


def period(blocks: int, block: float, message: float, steps: int = 50) -> float:
    """Seconds of a step, of many, of blocks that wait for their messages when they run again."""
    now = free = began = 0.0
    landed = [0.0] * blocks
    for step in range(2 * steps):
        began = now if step == steps else began
        for k in range(blocks):
            now = max(now, landed[k]) + block
            landed[k] = free = max(free, now) + message
    return (now - began) / steps


def ff_ddp(job: Job, processes: int) -> float:
    """Efficiency where every block has one message, and the time of a whole sweep for it."""
    block = job.compute(2)
    return job.blocks * block / period(job.blocks, block, job.average(processes))


def find_unused(job: Job, processes: int) -> float:
    """Efficiency where every block has messages of the whole network, and the step waits for the last."""
    block, message, free = job.compute(2), job.average(processes, job.blocks), 0.0
    for k in range(job.blocks):
        free = max(free, (k + 1) * block) + message
    return job.blocks * block / free


def backprop_ddp(job: Job, processes: int) -> float:
    """Efficiency of backprop, whose messages start with the backward pass of the last block."""
    start, message, free = job.blocks * job.compute(1), job.average(processes), 0.0
    for k in range(job.blocks):
        free = max(free, start + (k + 1) * job.compute(2)) + message
    return job.blocks * job.compute(3) / free


def ff_pipeline(job: Job, processes: int) -> float:
    """Efficiency of a pipeline in each node, at the same rows of the whole job, with averages over the pipelines."""
    stages = min(processes, NODE, job.blocks)
    own, copies = -(-job.blocks // stages), processes // stages
    block = stages * job.compute(2)
    message = 2 * (copies - 1) / copies * job.width**2 * BYTES / job.far
    activations = stages * job.rows * job.width * BYTES / job.near
    return job.blocks * job.compute(2) / max(period(own, block, message), activations)


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
