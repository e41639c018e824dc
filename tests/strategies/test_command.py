"""`ff_ddp` from the command line: accuracy of one process, and what happens when a process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.yaml"
TWO = ("--trainer.strategy=ff_ddp", "--trainer.devices=2", "--data.batch_size=25")
pytestmark = [
    pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here"),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes cannot be killed here"),
]


def command(*arguments: str) -> list[str]:
    quiet = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--model.widths=[64,48]")
    return [sys.executable, "-m", "lightning_ff", "fit", f"--config={EXAMPLE}", *quiet, *arguments]


def finished(*arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def weights(version: int) -> dict[str, Any]:
    file = Path(f"logs/digits/version_{version}/checkpoints/last.ckpt")
    return dict(torch.load(file, weights_only=False)["state_dict"])


def accuracy(said: str) -> float:
    return float(said.split("test accuracy")[1].split()[0])


def test_two_processes_reach_the_accuracy_of_one() -> None:
    run = ("--trainer.max_epochs=10", "--test_after_fit=true")
    one, two = accuracy(finished(*run)), accuracy(finished(*run, *TWO))
    assert one > 0.9
    assert two == pytest.approx(one, abs=0.01)


def of_rank(first: subprocess.Popen[str], rank: int) -> int:
    """Process id of a rank: the first process starts the other."""
    if rank == 0:
        return first.pid
    (child,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    return int(child)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_is_named_and_the_run_goes_on_from_its_checkpoint(killed: int) -> None:
    epochs = ("--trainer.max_epochs=24", "--trainer.check_val_every_n_epoch=4", *TWO)
    finished(*epochs)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with Path("log").open("w") as log:
        run = subprocess.Popen(command(*epochs), stdout=log, stderr=log, text=True, env=environment)
        checkpoint = Path("logs/digits/version_1/checkpoints/last.ckpt")
        while not checkpoint.exists():
            assert run.poll() is None
            time.sleep(0.05)
        other = of_rank(run, 1 - killed)
        os.kill(of_rank(run, killed), signal.SIGKILL)
        began = time.monotonic()
        while Path(f"/proc/{other}").exists() and "Z" not in Path(f"/proc/{other}/stat").read_text():
            assert time.monotonic() - began < 60
            run.poll()
            time.sleep(0.05)
        run.wait(60)
    assert f"rank {1 - killed}: rank {killed} was killed" in Path("log").read_text()
    saved = torch.load(checkpoint, weights_only=False)
    assert saved["epoch"] < 23
    finished(*epochs, f"--ckpt_path={checkpoint}")
    whole, again = weights(0), weights(2)
    for name, value in whole.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_of_a_pipeline_that_one_is_told_to_end_do_so_after_the_same_batch(rank: int) -> None:
    told = ("--trainer.callbacks+=tests.strategies.runs.Signal", f"--trainer.callbacks.rank={rank}")
    two = ("--trainer.strategy=ff_pipeline", "--trainer.devices=2", "--trainer.log_every_n_steps=6")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLE.parents[1])}
    subprocess.run(command(*told, *two), capture_output=True, timeout=120, env=environment)
    while not all(Path(f"ended{rank}").exists() for rank in (0, 1)):
        time.sleep(0.1)
    assert [Path(f"ended{rank}").read_text() for rank in (0, 1)] == ["SIGTERMException 6"] * 2
