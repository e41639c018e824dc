"""A run that is ended by SIGTERM is no success, and `matrix` resumes it."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from lightning_ff.matrix import Run, make

ARGUMENTS = (
    "--model=ForwardForward", "--model.widths=[8]", "--data=Digits", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false", "--test_after_fit=true",
)  # fmt: skip


def arguments(epochs: int) -> list[str]:
    logger = "{class_path: CSVLogger, init_args: {save_dir: ., name: a, version: seed0}}"
    return [*ARGUMENTS, f"--trainer.logger={logger}", f"--trainer.max_epochs={epochs}"]


def end(process: subprocess.Popen[str], last: Path) -> None:
    """End a process once it has a checkpoint."""
    while not last.is_file() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)


def test_fit_ends_with_the_code_of_sigterm(tmp_path: Path, python: str) -> None:
    line = [python, "-m", "lightning_ff", "fit", *arguments(100000)]
    process = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end(process, tmp_path / "a" / "seed0" / "checkpoints" / "last.ckpt")
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "lightning-ff: ended early by SIGTERM; the last checkpoint resumes the run" in errors
    assert "test accuracy" not in printed


@pytest.mark.usefixtures("forked_python")
def test_matrix_resumes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, started = Path("a", "seed0"), list[Any]()
    run = subprocess.run

    def ended(line: list[str], stdout: Any, stderr: Any, check: bool) -> subprocess.CompletedProcess[str]:
        process = subprocess.Popen(line, stdout=stdout, stderr=stderr, text=True)
        started.append(process)
        end(process, folder / "checkpoints" / "last.ckpt")
        return subprocess.CompletedProcess(line, process.wait(timeout=60))

    monkeypatch.setattr(subprocess, "run", ended)
    assert make(Run("a", 0, folder, arguments(100000))).startswith("ended early by SIGTERM, see ")
    assert not (folder / "finished.json").exists()
    monkeypatch.setattr(subprocess, "run", run)
    assert make(Run("a", 0, folder, arguments(1))).startswith("went on and finished")


def test_a_test_without_a_checkpoint_says_so(
    tmp_path: Path, command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command("test", "--model=ForwardForward", "--model.widths=[8]", "--data=Digits")
    assert "tested weights  untrained: no ckpt_path was given" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--model.num_classes is taken from the data: leave it out"):
        command("test", "--model=ForwardForward", "--model.widths=[8]", "--data=Digits", "--model.num_classes=5")


@pytest.mark.parametrize("use", ["fit", "test"])
def test_a_run_that_fails_before_it_begins_leaves_no_folder(
    tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ("--model=ForwardForward", "--model.widths=[8]", "--data=Digits", "--trainer.max_epochs=1")
    runs = Path("logs", "lightning_logs")
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        command(use, *tiny, "--ckpt_path=none.ckpt")
    assert not [*runs.glob("*")]
    command("fit", *tiny)
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        command(use, *tiny, "--ckpt_path=none.ckpt")
    assert [run.name for run in runs.glob("*")] == ["version_0"]
