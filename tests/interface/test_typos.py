"""Mistakes on the command line: at most five lines, which name the option, the value, and names that are near."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_ff import ForwardForward
from lightning_ff.cli import CLI, main
from lightning_ff.data import Digits
from tests.command_line import parser

MODEL = ("--model=ForwardForward", "--model.widths=[8]", "--data=Digits")
TYPOS: dict[str, tuple[list[str], list[str]]] = {
    "learner": (["fit", "--model=ForwardForwrd", "--data=Digits"], ["--model=ForwardForwrd", "mean ForwardForward"]),
    "data": (["fit", "--model=ForwardForward", "--data=Digts"], ["--data=Digts", "did you mean Digits?"]),
    "command": (["fti", *MODEL], ["'fti' is no command", "choose one of fit, validate, test, predict"]),
    "part": (["fit", *MODEL, "--model.loss=SymBaa"], ["--model.loss=SymBaa", "did you mean SymBa?"]),
    "sampler": (["fit", *MODEL, "--model.negatives=WrongLable"], ["--model.negatives=WrongLable", "mean WrongLabel"]),
    "module": (
        ["fit", "--model=my_modul.Mine", "--data=Digits"],
        ["no module 'my_modul'", "PYTHONPATH=."],
    ),
    "name of two": (
        ["fit", "--model=MonoForward", "--model.model=MLP", "--model.model.inputs=64", "--data=Digits"],
        ["--model=MLP", "choose one of", "lightning_ff.MLP"],
    ),
    "optimizer": (["fit", *MODEL, "--model.optimizer=Adm"], ["--model.optimizer=Adm", "did you mean Adam"]),
    "scheduler": (["fit", *MODEL, "--model.scheduler=CosinToEnd"], ["--model.scheduler", "did you mean CosineToEnd?"]),
    "argument": (
        ["fit", *MODEL, "--model.los=SymBa"],
        ["--model.los", "ForwardForward has no argument 'los'", "did you mean loss"],
    ),
    "of a base": (["fit", *MODEL, "--model.gradient_clip=1"], ["--model.gradient_clip", "gradient_clip_val"]),
    "of the data": (["fit", *MODEL, "--data.batch_sise=3"], ["--data.batch_sise", "did you mean batch_size"]),
    "of a part": (
        ["fit", *MODEL, "--model.loss=SymBa", "--model.loss.alfa=3"],
        ["--model.loss.alfa", "SymBa has no argument 'alfa' (did you mean alpha?)"],
    ),
    "choice": (
        ["fit", *MODEL, "--model.normalization=rmss"],
        ["--model.normalization=rmss: choose one of l2, rms, layer, channel, none (did you mean rms?)"],
    ),
    "number": (["fit", *MODEL, "--trainer.max_epochs=x"], ["--trainer.max_epochs=x: give a whole number"]),
    "list": (["fit", *MODEL, "--model.widths=eight"], ["--model.widths=eight: give a list"]),
    "callback": (
        ["fit", *MODEL, "--trainer.callbacks+=GoodnesMonitor"],
        ["--trainer.callbacks=GoodnesMonitor", "did you mean GoodnessMonitor"],
    ),
    "logger": (["fit", *MODEL, "--trainer.logger=CSVLoger"], ["--trainer.logger=CSVLoger", "mean CSVLogger"]),
    "flag": (
        ["fit", *MODEL, "--trainer.maxepochs=3"],
        ["there is no option --trainer.maxepochs", "did you mean --trainer.max_epochs"],
    ),
    "file": (["fit", "--config=none.yaml"], ["--config: File does not exist", "none.yaml"]),
}


@pytest.mark.parametrize("case", TYPOS)
def test_a_mistake_takes_a_line_or_two(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    line, said = TYPOS[case]
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(line)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) <= 5
    assert printed.err.startswith("lightning-ff: error: ")
    assert "usage" not in printed.err
    for each in said:
        assert each in printed.err


def test_help_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["fit", "--help"])
    assert ended.value.code == 0
    assert "usage: lightning-ff" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["test", *MODEL, "--ckpt_path=none.ckpt"], "FileNotFoundError: Checkpoint file not found: none.ckpt"),
        (["fit", *MODEL, "--data=MNIST", "--data.root=none"], "none"),
        (["fit", *MODEL, "--model.widths=[0]"], "ValueError: widths"),
    ],
)
def test_plain_mistakes_end_in_one_line(tmp_path: Path, in_shell: Any, arguments: list[str], said: str) -> None:
    done = in_shell(tmp_path, *arguments, "--trainer.accelerator=cpu", "--trainer.logger=false")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("lightning-ff: error: ")
    assert said in last


def test_errors_of_others_keep_their_traceback(tmp_path: Path, in_shell: Any) -> None:
    lines = ("from lightning_ff import SumReadout", "class Broken(SumReadout):", "  def contributions(self, outputs):",
             "    raise ValueError('mine')")  # fmt: skip
    text = "\n".join(lines)
    (tmp_path / "own_parts.py").write_text(text)
    done = in_shell(tmp_path, "fit", *MODEL, "--model.readout=own_parts.Broken", "--trainer.fast_dev_run=1")
    assert done.returncode == 1
    assert "ValueError: mine" in done.stderr
    assert "own_parts.py" in done.stderr


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("flag", ["enable_checkpointing=false", "barebones=true"])
def test_runs_without_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.chdir(tmp_path)
    limits = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu")
    cli = main(["fit", *MODEL, f"--trainer.{flag}", *limits])
    assert cli.trainer.global_step == 2
    assert not list(tmp_path.rglob("*.ckpt"))


def test_help_of_a_learner_lists_no_modules_of_torch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["fit", "--model.help=ForwardForward"])
    printed = capsys.readouterr().out
    assert "--model.widths" in printed
    assert "torch.nn.Identity" not in printed
    assert len(printed.splitlines()) < 1000


def test_the_command_line_of_one_learner_and_data_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["fit", "--model.widths=[8]", "--trainer.accelerator=cpu", "--trainer.fast_dev_run=1"]
    cli = CLI(ForwardForward, Digits, args=line, auto_configure_optimizers=False)
    assert cli.model.num_classes == 10
    assert cli.trainer.global_step == 1
