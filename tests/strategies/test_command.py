"""Strategies from the command line: the accuracy of one process, and runs in which a process is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest
import torch
import torch.distributed as dist

from tests.strategies.runs import EXAMPLE, accuracy, difference, last_weights, one_thread, printed

PYTHON = sys.executable
STRATEGIES = {
    "ff_ddp": ("--trainer.strategy=ff_ddp", "--trainer.devices=2", "--data.batch_size=25"),
    "ff_fsdp2": ("--trainer.strategy=ff_fsdp2", "--trainer.devices=2", "--data.batch_size=25"),
    "ff_pipeline": ("--trainer.strategy=ff_pipeline", "--trainer.devices=2"),
}
RUN = ("--trainer.max_epochs=10", "--test_after_fit=true")
pytestmark = [
    pytest.mark.usefixtures("forked_python"),
    pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here"),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes cannot be killed here"),
]


def fit(*arguments: str) -> list[str]:
    quiet = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--model.widths=[64,48]")
    return ["-m", "lightning_ff", "fit", f"--config={EXAMPLE}", *quiet, *arguments]


def finished(*arguments: str, folder: Path = Path()) -> str:
    return printed(*fit(*arguments), folder=folder)


@pytest.fixture(scope="module")
def alone(forked_python: None, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Test accuracy of ten epochs in one process."""
    return accuracy(finished(*RUN, folder=tmp_path_factory.mktemp("alone")))


@pytest.mark.parametrize(
    "strategy", ["ff_ddp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ff_fsdp2", "ff_pipeline"))]
)
def test_two_processes_reach_the_accuracy_of_one(strategy: str, alone: float) -> None:
    assert alone > 0.9
    output = finished(*RUN, *STRATEGIES[strategy])
    assert accuracy(output) == pytest.approx(alone, abs=0.01 if strategy != "ff_pipeline" else 1e-9)
    logs = Path("logs/digits/version_0")
    assert json.loads((logs / "run.json").read_text())["processes"] == 2
    one = ("--trainer.strategy=auto", "--trainer.devices=1", f"--ckpt_path={logs / 'checkpoints/last.ckpt'}")
    tested = printed("-m", "lightning_ff", "test", f"--config={logs / 'config.yaml'}", *one)
    assert accuracy(tested) == pytest.approx(accuracy(output), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_new_interpreters_do_what_forked_ones_do(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forked = accuracy(finished(*RUN, *STRATEGIES[strategy]))
    monkeypatch.setattr(sys, "executable", PYTHON)
    assert accuracy(finished(*RUN, *STRATEGIES[strategy])) == forked
    assert difference(last_weights(0), last_weights(1)) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ff_ddp", "ff_pipeline"])
def test_two_agents_of_torchrun_are_two_nodes(strategy: str, alone: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1",
             "--master_addr=127.0.0.1", f"--master_port={port}"]  # fmt: skip
    job = [*fit(*RUN, *STRATEGIES[strategy]), "--trainer.num_nodes=2", "--trainer.devices=1"]
    nodes = [
        subprocess.Popen([*agent, f"--node_rank={rank}", *job], stdout=PIPE, stderr=STDOUT, text=True, env=one_thread())
        for rank in (0, 1)
    ]
    output = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], output
    assert accuracy(output[0]) == pytest.approx(alone, abs=0.01)


@pytest.mark.realdata
def test_resnet18_in_a_pipeline_is_that_of_one_process() -> None:
    if "LIGHTNING_FF_DATA" not in os.environ:
        pytest.skip("LIGHTNING_FF_DATA names no folder with the real data sets")
    call = [sys.executable, "-m", "lightning_ff", "fit", f"--config={EXAMPLE.parent / 'cifar10_sff.yaml'}",
            f"--data.root={os.environ['LIGHTNING_FF_DATA']}", "--data.train_size=65", "--data.val_size=200",
            "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--seed_everything=0"]  # fmt: skip
    for two in ((), STRATEGIES["ff_pipeline"]):  # batches of 128 out of 650 images: the last has 10
        subprocess.run([*call, *two], check=True, timeout=300, env=one_thread())
    saved = [torch.load(file, weights_only=False) for file in sorted(Path("logs").rglob("last.ckpt"))]
    one, two_processes = (each["state_dict"] for each in saved)
    assert len(saved) == 2
    assert all(torch.equal(value, two_processes[name]) for name, value in one.items())


def kill_when_saved(killed: int, version: int, *arguments: str) -> Path:
    """Kill a rank once a checkpoint exists, check that the other reports it and ends; returns the checkpoint."""
    checkpoint = Path(f"logs/digits/version_{version}/checkpoints/last.ckpt")
    with Path("log").open("w") as log:
        run = subprocess.Popen([sys.executable, *fit(*arguments)], stdout=log, stderr=log, text=True, env=one_thread())
        while not checkpoint.exists():
            assert run.poll() is None, Path("log").read_text()
            time.sleep(0.02)
        pids = [int(Path(f"pid{rank}").read_text()) for rank in (0, 1)]
        os.kill(pids[killed], signal.SIGKILL)
        other, start = pids[1 - killed], time.monotonic()
        while Path(f"/proc/{other}").exists() and "Z" not in Path(f"/proc/{other}/stat").read_text():
            assert time.monotonic() - start < 60
            run.poll()
            time.sleep(0.05)
        run.wait(60)
    assert f"rank {1 - killed}: rank {killed} was killed" in Path("log").read_text()
    return checkpoint


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ff_ddp", "ff_pipeline"])
def test_a_killed_process_is_named_and_the_run_goes_on_from_its_checkpoint(strategy: str) -> None:
    run = ("--trainer.max_epochs=20", "--trainer.check_val_every_n_epoch=4", *STRATEGIES[strategy])
    run = (*run, "--trainer.callbacks=tests.strategies.runs.Pid")
    finished(*run)
    first = kill_when_saved(1, 1, *run)
    second = kill_when_saved(0, 2, *run, f"--ckpt_path={first}")
    saved = [torch.load(file, weights_only=False)["epoch"] for file in (first, second)]
    assert saved[0] < saved[1] < 19
    finished(*run, f"--ckpt_path={second}")
    whole, again = last_weights(0), last_weights(3)
    for name, value in whole.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("strategy", "rank"),
    [("ff_ddp", 0), pytest.param("ff_fsdp2", 1, marks=pytest.mark.slow), ("ff_pipeline", 0), ("ff_pipeline", 1)],
)
def test_processes_of_which_one_is_told_to_end_do_so_after_the_same_batch(strategy: str, rank: int) -> None:
    told = ("--trainer.callbacks=tests.strategies.runs.Signal", f"--trainer.callbacks.rank={rank}")
    two = (*STRATEGIES[strategy], "--trainer.log_every_n_steps=6")
    subprocess.run([sys.executable, *fit(*told, *two)], capture_output=True, timeout=120, env=one_thread())
    while not all(Path(f"ended{rank}").exists() for rank in (0, 1)):
        time.sleep(0.1)
    assert [Path(f"ended{rank}").read_text() for rank in (0, 1)] == ["SIGTERMException 6"] * 2


def test_a_job_goes_on_with_fewer_processes_and_says_where() -> None:
    keep = ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=40",
            "--trainer.callbacks.filename=middle", "--trainer.callbacks.save_on_train_epoch_end=false")  # fmt: skip
    finished("--trainer.max_epochs=2", *STRATEGIES["ff_ddp"], *keep)
    (middle,) = Path("logs/digits").rglob("middle.ckpt")
    at = torch.load(middle, weights_only=False)
    output = finished("--trainer.max_epochs=4", f"--ckpt_path={middle}", "--data.batch_size=25")
    assert f"batches of 50 in epoch {at['epoch']}, and batches of all processes together now have 25" in output
    last = torch.load("logs/digits/version_1/checkpoints/last.ckpt", weights_only=False)
    epochs, batches = 4 - at["epoch"], 52
    assert last["global_step"] == at["global_step"] + epochs * batches
