"""`--ckpt_path last` in a process that has not trained: the run's last checkpoint, or an error, never new weights."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_ff.cli import CLI

Command = Callable[..., CLI]
TINY = ("--model=ForwardForward", "--model.widths=[16,16]", "--data=Digits", "--trainer.max_epochs=1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_last_of_the_only_run_is_tested_in_a_new_process(here: Path, command: Command, in_shell: Any) -> None:
    fitted = command("fit", *TINY)
    last = here / "logs" / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    expected = fitted.trainer.test(fitted.model, fitted.datamodule, verbose=False)[0]["test/acc"]
    quiet = "--trainer.enable_progress_bar=false"
    for times in range(2):  # the first one leaves a folder without a checkpoint
        done: subprocess.CompletedProcess[str] = in_shell(here, "test", *TINY, quiet, "--ckpt_path", "last")
        assert done.returncode == 0, done.stderr
        assert f"test accuracy      {expected:.4f}\n" in done.stdout, times
        assert f"tested checkpoint  {last.relative_to(here)}\n" in done.stdout
    untrained = in_shell(here, "test", *TINY, quiet)
    assert re.search(r"test accuracy +([\d.]+)", untrained.stdout)[1] != f"{expected:.4f}"  # type: ignore[index]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("use", ["validate", "predict"])
def test_last_serves_the_other_subcommands(here: Path, command: Command, use: str) -> None:
    trained = command("fit", *TINY).model.state_dict()
    cli = command(use, *TINY, "--ckpt_path=last")
    assert str(cli.trainer.ckpt_path).endswith("version_0/checkpoints/last.ckpt")
    assert all(torch.equal(value, trained[name]) for name, value in cli.model.state_dict().items())


@pytest.mark.parametrize("use", ["validate", "test", "predict"])
def test_without_a_last_checkpoint_nothing_runs(
    here: Path, command: Command, capsys: pytest.CaptureFixture[str], use: str
) -> None:
    looked = re.escape(os.path.join("logs", "lightning_logs", "version_0", "checkpoints"))
    message = f"^ckpt_path='last': no last.ckpt in {looked} or a run beside it: fit first, or give its path$"
    with pytest.raises(FileNotFoundError, match=message):
        command(use, *TINY, "--ckpt_path=last")
    assert "accuracy" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_several_runs_are_told_apart_by_the_user_s_path_or_version(here: Path, command: Command) -> None:
    for seed in (1, 2):
        command("fit", *TINY, f"--seed_everything={seed}")
    first, second = (here / "logs" / "lightning_logs" / f"version_{n}" / "checkpoints" / "last.ckpt" for n in (0, 1))
    os.utime(first, (2e9, 2e9))
    newest = re.escape(str(first.relative_to(here)))
    message = (
        f"^ckpt_path='last': 2 runs in logs/lightning_logs have a last.ckpt, the newest is {newest}: give the path"
    )
    with pytest.raises(ValueError, match=message):
        command("test", *TINY, "--ckpt_path=last")
    logger = ("--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", "--trainer.logger.version=1")
    cli = command("test", *TINY, *logger, "--ckpt_path=last")
    weights = torch.load(second, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in cli.model.state_dict().items())


def test_last_lies_where_checkpoints_are_kept(here: Path, command: Command) -> None:
    kept = ("--checkpoint.dirpath=kept",)
    with pytest.raises(FileNotFoundError, match=re.escape(f"no last.ckpt in {here / 'kept'}: fit first")):
        command("test", *TINY, *kept, "--ckpt_path=last")
    trained = command("fit", *TINY, *kept).model.state_dict()
    cli = command("test", *TINY, *kept, "--ckpt_path=last")
    assert Path(str(cli.trainer.ckpt_path)) == here / "kept" / "last.ckpt"
    assert all(torch.equal(value, trained[name]) for name, value in cli.model.state_dict().items())


def test_last_of_a_run_without_a_logger_lies_in_the_root_folder(here: Path, command: Command) -> None:
    plain = ("--trainer.logger=false", "--trainer.default_root_dir=root")
    trained = command("fit", *TINY, *plain).model.state_dict()
    cli = command("test", *TINY, *plain, "--ckpt_path=last")
    assert Path(str(cli.trainer.ckpt_path)).resolve() == here / "root" / "checkpoints" / "last.ckpt"
    assert all(torch.equal(value, trained[name]) for name, value in cli.model.state_dict().items())


def test_arguments_for_widths_are_refused_beside_blocks_and_their_defaults_are_not(
    here: Path, command: Command
) -> None:
    layers = [
        "torch.nn.Flatten",
        {"class_path": "torch.nn.Linear", "init_args": {"in_features": 64, "out_features": 4}},
    ]
    blocks = ("--model=ForwardForward", f"--model.blocks={layers}", "--data=Digits", "--trainer.fast_dev_run=1")
    cli = command("fit", *blocks)
    assert [type(block.layers).__name__ for block in cli.model.blocks] == ["Flatten", "Linear"]
    with pytest.raises(ValueError, match=r"^dropout=0\.5 with blocks=\.\.\.: acts on the layers that widths makes"):
        command("fit", *blocks, "--model.dropout=0.5")
