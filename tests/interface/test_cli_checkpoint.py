"""`--ckpt_path`: what is given on the command line counts, and the checkpoint fills the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_ff import LastReadout, SoftmaxReadout
from lightning_ff.cli import CLI
from lightning_ff.cli.arguments import filled, given_names

Command = Callable[..., CLI]
MODEL = ("--model=ForwardForward", "--data=Digits")
FIT = (
    *MODEL,
    "--model.widths=[9,8]",
    "--model.readout=SoftmaxReadout",
    "--model.optimizer=torch.optim.SGD",
    "--model.optimizer.lr=0.05",
    "--model.optimizer.momentum=0.5",
    "--model.scheduler=torch.optim.lr_scheduler.StepLR",
    "--model.scheduler.step_size=1",
    "--model.scheduler.gamma=0.5",
    "--trainer.limit_train_batches=3",
)
LAST = Path("logs/lightning_logs/version_0/checkpoints/last.ckpt")
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """Of one run."""
    here = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        command("fit", *FIT, "--trainer.max_epochs=1")
    return here


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Command:
    """The command line in a copy of the run's folder."""
    (tmp_path / LAST.parent).mkdir(parents=True)
    (tmp_path / LAST).write_bytes((folder / LAST).read_bytes())
    (tmp_path / LAST.with_name("best-epoch=000.ckpt")).write_bytes((folder / LAST).read_bytes())
    monkeypatch.chdir(tmp_path)
    return command


@pytest.mark.parametrize("path", [str(LAST), "last", "best"])
@pytest.mark.parametrize("use", ["test", "validate", "predict"])
def test_the_checkpoint_fills_what_is_not_given(run: Command, use: str, path: str) -> None:
    cli = run(use, *MODEL, f"--ckpt_path={path}")
    assert [block.layers[-2].out_features for block in cli.model.blocks] == [9, 8]  # type: ignore[union-attr, index]
    assert isinstance(cli.model.network.readout, SoftmaxReadout)
    saved = torch.load(LAST, weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in cli.model.state_dict().items())


@pytest.mark.parametrize("path", [str(LAST), "last", "best"])
def test_what_is_given_counts(run: Command, path: str, tmp_path: Path) -> None:
    cli = run("test", *MODEL, "--model.readout=LastReadout", f"--ckpt_path={path}")
    assert isinstance(cli.model.network.readout, LastReadout)
    given = float(cli.trainer.callback_metrics["test/acc"])
    assert given == float(cli.trainer.callback_metrics["test/acc/block01"])
    (tmp_path / "given.yaml").write_text("model: {class_path: ForwardForward, init_args: {readout: LastReadout}}")
    cli = run("test", "--config=given.yaml", "--data=Digits", f"--ckpt_path={path}")
    assert isinstance(cli.model.network.readout, LastReadout)
    assert float(cli.trainer.callback_metrics["test/acc"]) == given


@pytest.mark.parametrize("path", [str(LAST), "last", "best"])
def test_weights_of_another_network_are_refused(run: Command, path: str) -> None:
    with pytest.raises(ValueError, match=r"the checkpoint is of another network: .* is \(9, 64\) there, and \(7, 64\)"):
        run("test", *MODEL, "--model.widths=[7]", f"--ckpt_path={path}")


def test_another_learner_is_refused(run: Command) -> None:
    other = ("--model=Backprop", "--model.model=MLP", "--data=Digits")
    with pytest.raises(
        ValueError, match=r"is of lightning_ff.ForwardForward, and model=lightning_ff.Backprop: give one"
    ):
        run("test", *other, f"--ckpt_path={LAST}")


def rates(cli: CLI) -> list[float]:
    return [group["lr"] for group in cli.model.local_optimizers.param_groups]


def test_a_resume_takes_settings_of_the_checkpoint_or_those_that_are_given(run: Command) -> None:
    longer = ("fit", *MODEL, "--trainer.max_epochs=2", "--trainer.limit_train_batches=3", f"--ckpt_path={LAST}")
    cli = run(*longer)
    assert rates(cli) == pytest.approx([0.05 / 4] * 2)
    assert cli.model.local_optimizers.param_groups[0]["momentum"] == 0.5
    assert cli.trainer.global_step == 6
    steps = "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 1, gamma: 0.1}}"
    cli = run(*longer, "--model.optimizer.lr=0.01", f"--model.scheduler={steps}")
    assert rates(cli) == pytest.approx([0.01 * 0.5 * 0.1] * 2)  # one epoch of the checkpoint, one of this run
    assert cli.model.local_optimizers.param_groups[0]["momentum"] == 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--model.optimizer=torch.optim.Adam",), "the optimizer of block00 is Adam, and .* the state of SGD: resume"),
        (
            ("--model.scheduler=torch.optim.lr_scheduler.ExponentialLR", "--model.scheduler.gamma=0.5"),
            "the scheduler of block00 is ExponentialLR, and the checkpoint has the state of StepLR",
        ),
    ],
)
def test_a_resume_with_another_class_is_refused(run: Command, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("fit", *MODEL, "--trainer.max_epochs=2", f"--ckpt_path={LAST}", *given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], {"a": 1, "part": {"class_path": "P", "init_args": {"x": 1, "y": 2}}, "terms": [1]}),
        ([["a"]], {"a": 5, "part": {"class_path": "P", "init_args": {"x": 1, "y": 2}}, "terms": [1]}),
        ([["part", "x"]], {"a": 1, "part": {"class_path": "P", "init_args": {"x": 7, "y": 2}}, "terms": [1]}),
        ([["part"], ["part", "x"]], {"a": 1, "part": {"class_path": "Q", "init_args": {"x": 7, "y": 8}}, "terms": [1]}),
        ([["part", "x"], ["part", "y"], ["terms"]],
         {"a": 1, "part": {"class_path": "P", "init_args": {"x": 7, "y": 8}}, "terms": [3]}),
    ],
)  # fmt: skip
def test_arguments_are_put_together_by_name(given: Any, expected: Any) -> None:
    ours = {"a": 5, "part": {"class_path": "Q", "init_args": {"x": 7, "y": 8}}, "terms": [3]}
    saved = {"a": 1, "part": {"class_path": "P", "init_args": {"x": 1, "y": 2}}, "terms": [1], "unknown": 0}
    assert filled(ours, saved, given) == expected


def test_names_of_what_is_given(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("fit: {model: {class_path: A, init_args: {widths: [3], loss: SymBa}}}\ntrainer: {max_epochs: 1}")
    words = ["--model", "A", "--model.class_path=B", "--model.init_args.optimizer.init_args.lr", "1", "--data.seed=3"]
    found = given_names([*words, "--model.terms+=[PeerNormalization]"], [file])
    assert found == [["widths"], ["loss"], ["optimizer", "lr"], ["terms"]]
    assert given_names({"model": {"class_path": "A", "init_args": {"widths": [3]}}}, []) == [["widths"]]
