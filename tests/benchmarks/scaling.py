"""Samples per second of two processes of one thread over those of one process of one thread.

    python -m tests.benchmarks.scaling --json scaling.json

Forward-Forward, 4 equal blocks 1500 to 1500, labels written into 1500 pixels, SGD, batches of 256 of the whole job (128
a process under data parallelism), each under a Trainer as a user starts it, with default logging. Counted is a
process's time from batch to batch after the first ten; the slowest process of a run counts. Kinds of runs take turns,
and ratios are medians over turns.

ceiling: two independent processes of the same single-process run at once, over one alone: what the machine allows.
pipeline_schedule: blocks that sleep 30 ms, on small images, so that nothing but the order of things limits a pipeline.
ddp_backprop: Lightning's ddp on backprop through the same layers, over backprop in one process.
ddp_summed: Lightning's ddp with one backward on the sum of the local losses, over the run of one process.
traffic: elements of messages per step over parameters.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.benchmarks.report import arguments, publish

NOTES = {
    "ff_ddp": "aim: not below ddp_summed and ddp_backprop",
    "pipeline_schedule": "aim at least 1.85",
    "traffic_ff_ddp": "aim 1.00",
}


def start(kind: str, batches: int, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start a run, with one thread a process."""
    folder.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    call = [sys.executable, "-m", "tests.benchmarks.scaling_run", kind, f"--batches={batches}", f"--folder={folder}"]
    with (folder / "log").open("w") as log:
        return subprocess.Popen([*call, *more], stdout=log, stderr=log, env=environment)


def results(run: subprocess.Popen[bytes], folder: Path) -> list[dict[str, float]]:
    """What the processes of a run have measured, when it is through."""
    if run.wait() != 0:
        raise RuntimeError(f"a run failed:\n{(folder / 'log').read_text()}")
    return [json.loads(file.read_text()) for file in sorted(folder.glob("rank*.json"))]


def seconds(kind: str, batches: int, at_once: int = 1) -> float:
    """Seconds per batch of the slowest process, where so many such runs go on at once."""
    with tempfile.TemporaryDirectory() as parent:
        folders = [Path(parent) / str(i) for i in range(at_once)]
        runs = [start(kind, batches, folder) for folder in folders]
        return max(one["seconds"] for run, folder in zip(runs, folders, strict=True) for one in results(run, folder))


def traffic(kind: str) -> float:
    """Elements of a process's messages per step, over the number of parameters."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        return results(start(kind, 15, folder, "--traffic"), folder)[0]["traffic"]


def turn(batches: int) -> dict[str, float]:
    """Speed-ups of one turn."""
    one, backprop = seconds("one", batches), seconds("backprop", batches)
    found = {"ff_ddp": one / seconds("ff_ddp", batches)}
    found["ceiling"] = 2 * one / seconds("one", batches, at_once=2)  # between the two that are held against it
    found |= {name: one / seconds(name, batches) for name in ("ff_pipeline", "ddp_summed")}
    found["ff_ddp_over_ceiling"] = found["ff_ddp"] / found["ceiling"]
    found["ff_pipeline_over_ceiling"] = found["ff_pipeline"] / found["ceiling"]
    found["pipeline_schedule"] = seconds("sleep_one", batches) / seconds("sleep_pipeline", batches)
    found["ddp_backprop"] = backprop / seconds("ddp_backprop", batches)
    found["seconds_one"] = one
    return found


def main() -> None:
    given = arguments(__doc__ or "", threads=1)
    turns = [turn(15 if given.quick else 70) for _ in range(1 if given.quick else 5)]
    numbers = {name: median(each[name] for each in turns) for name in turns[0]}
    numbers["traffic_ff_ddp"] = traffic("ff_ddp")
    numbers["traffic_find_unused"] = traffic("find_unused")
    publish(numbers, NOTES, given.json)


if __name__ == "__main__":
    main()
