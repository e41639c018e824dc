"""Checkpoints that describe programs in place of parts: nothing of them runs, is imported or is called."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, StepLR

from lightning_ff import (
    ActivationPenalty,
    ForwardForward,
    LocalLearner,
    MeanSquare,
    RandomShift,
    ScalableForwardForward,
    SoftmaxReadout,
    UntrustedCheckpoint,
    WrongLabel,
)
from lightning_ff.cli import main
from lightning_ff.data import Digits

QUIET: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "max_epochs": 1}
QUIET |= {"limit_train_batches": 1, "limit_val_batches": 0, "enable_checkpointing": False}
PARTS = ("negatives", "labels", "augment", "goodness", "loss", "optimizer", "scheduler", "readout", "terms", "credit")


def learner(**arguments: Any) -> ForwardForward:
    return ForwardForward(10, (1, 8, 8), widths=[6], **arguments)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A checkpoint of a run."""
    file = tmp_path_factory.mktemp("saved") / "good.ckpt"
    trainer = Trainer(**QUIET)
    trainer.fit(learner(), Digits())
    trainer.save_checkpoint(file)
    return dict(torch.load(file, weights_only=True))


def write(saved: dict[str, Any], file: Path, **arguments: Any) -> Path:
    torch.save({**saved, "hyper_parameters": {**saved["hyper_parameters"], **arguments}}, file)
    return file


def programs(mark: Path) -> dict[str, dict[str, Any]]:
    """Descriptions that leave a file, or would import something, if they are built."""
    touch = f"touch {mark}"
    return {
        "system": {"class_path": "os.system", "init_args": {"command": touch}},
        "subprocess": {"class_path": "subprocess.check_output", "init_args": {"args": ["touch", str(mark)]}},
        "class": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(mark)]}},
        "eval": {"class_path": "builtins.exec", "init_args": {"source": f"open({str(mark)!r}, 'w')"}},
        "within torch": {"class_path": "torch.os.system", "init_args": {"command": touch}},
        "function of torch": {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": str(mark), "model": "x"}},
        "function of ours": {
            "class_path": "lightning_ff.spec.part",
            "init_args": {"value": {"class_path": "os.abort"}},
        },
        "nested": {
            "class_path": "torch.nn.Threshold",
            "init_args": {"threshold": {"class_path": "os.system", "init_args": {"command": touch}}, "value": 0.0},
        },
        "in a list": {
            "class_path": "lightning_ff.Mixture",
            "init_args": {"samplers": [{"class_path": "os.system", "init_args": {"command": touch}}]},
        },
        "module": {"class_path": "lightning_ff_hostile.Part", "init_args": {}},
    }


@pytest.fixture
def hostile_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module on the path that leaves a file when it is imported."""
    mark = tmp_path / "ran"
    text = f"open({str(mark)!r}, 'w').close()\nfrom lightning_ff import SumReadout\nclass Part(SumReadout): pass\n"
    (tmp_path / "lightning_ff_hostile.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield mark
    sys.modules.pop("lightning_ff_hostile", None)


@pytest.mark.parametrize("program", programs(Path()))
@pytest.mark.parametrize("argument", [*PARTS, "block_optimizers"])
def test_no_argument_runs_a_program(
    saved: dict[str, Any], tmp_path: Path, hostile_module: Path, argument: str, program: str
) -> None:
    description: Any = programs(hostile_module)[program]
    given = {"terms": [description], "block_optimizers": {"block00": description}}.get(argument, description)
    file = write(saved, tmp_path / "hostile.ckpt", **{argument: given})
    with pytest.raises((UntrustedCheckpoint, ValueError), match="class_path="):
        ForwardForward.load_from_checkpoint(file)
    assert not hostile_module.exists()
    assert "lightning_ff_hostile" not in sys.modules


def test_a_network_to_cut_runs_no_program(saved: dict[str, Any], tmp_path: Path, hostile_module: Path) -> None:
    for description in programs(hostile_module).values():
        file = write(saved, tmp_path / "hostile.ckpt", model=description)
        with pytest.raises((UntrustedCheckpoint, ValueError), match="class_path="):
            ScalableForwardForward.load_from_checkpoint(file)
    assert not hostile_module.exists()


@pytest.mark.parametrize("program", ["system", "nested", "module"])
def test_a_resume_and_a_test_build_nothing(
    saved: dict[str, Any], tmp_path: Path, hostile_module: Path, program: str
) -> None:
    file = write(saved, tmp_path / "hostile.ckpt", readout=programs(hostile_module)[program])
    model = learner()
    Trainer(**{**QUIET, "max_epochs": 2}).fit(model, Digits(), ckpt_path=file)
    Trainer(**QUIET).test(model, Digits(), ckpt_path=file, verbose=False)
    assert not hostile_module.exists()


@pytest.mark.parametrize("use", ["fit", "test"])
def test_the_command_line_builds_nothing(
    saved: dict[str, Any], tmp_path: Path, hostile_module: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [use, "--model=ForwardForward", "--model.widths=[6]", "--data=Digits", "--trainer.accelerator=cpu"]
    for name in ("system", "nested", "module"):
        file = write(saved, tmp_path / "hostile.ckpt", readout=programs(hostile_module)[name])
        with pytest.raises(UntrustedCheckpoint, match="class_path="):
            main([*words, f"--ckpt_path={file}"])
    assert not hostile_module.exists()


class Runs:
    """Runs a program when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def test_pickled_programs_do_not_run(saved: dict[str, Any], tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "hostile.ckpt"
    torch.save({**saved, "callbacks": Runs(mark)}, file)
    uses: list[Any] = [
        lambda: ForwardForward.load_from_checkpoint(file),
        lambda: ForwardForward.load_from_checkpoint(io.BytesIO(file.read_bytes())),
        lambda: Trainer(**{**QUIET, "max_epochs": 2}).fit(learner(), Digits(), ckpt_path=file),
        lambda: Trainer(**QUIET).test(learner(), Digits(), ckpt_path=file),
    ]
    for use in uses:
        with pytest.raises(UntrustedCheckpoint, match=r"holds more than plain data .*weights_only=False"):
            use()
    with pytest.raises(ValueError, match=r"cannot be read as a state_dict \(UnpicklingError\)"):
        ScalableForwardForward(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 10, (1, 8, 8), weights=str(file))
    assert not mark.exists()
    ForwardForward.load_from_checkpoint(file, weights_only=False)  # the user's own word
    assert mark.exists()


@pytest.mark.parametrize("instantiator", ["os.system", "lightning_ff.spec.part", 3])
def test_the_instantiator_is_lightnings(saved: dict[str, Any], tmp_path: Path, instantiator: Any) -> None:
    file = write(saved, tmp_path / "hostile.ckpt", _instantiator=instantiator, _class_path="os.system")
    with pytest.raises(UntrustedCheckpoint, match="_instantiator="):
        LocalLearner.load_from_checkpoint(file)


def test_the_class_of_the_learner_is_one(saved: dict[str, Any], tmp_path: Path) -> None:
    instantiator = "lightning.pytorch.cli.instantiate_module"
    for name in ("os.system", "torch.nn.Linear", "lightning_ff.WrongLabel"):
        file = write(saved, tmp_path / "hostile.ckpt", _instantiator=instantiator, _class_path=name)
        with pytest.raises(UntrustedCheckpoint, match=f"class_path='{name}' of the learner .* is no class of type"):
            LocalLearner.load_from_checkpoint(file)


def test_what_is_trusted_is_built(saved: dict[str, Any], tmp_path: Path, hostile_module: Path) -> None:
    file = write(saved, tmp_path / "own.ckpt", readout={"class_path": "lightning_ff_hostile.Part", "init_args": {}})
    message = (
        r"lightning_ff_hostile is not imported for a file; import it before, or give trusted=\['lightning_ff_hostile'\]"
    )
    with pytest.raises(UntrustedCheckpoint, match=message):
        ForwardForward.load_from_checkpoint(file)
    model = ForwardForward.load_from_checkpoint(file, trusted=["lightning_ff_hostile"])
    assert type(model.network.readout).__name__ == "Part"
    assert hostile_module.exists()
    again = ForwardForward.load_from_checkpoint(file)  # it is imported now
    assert type(again.network.readout) is type(model.network.readout)


def slow_start(step: int) -> float:
    return min(1.0, (step + 1) / 10)


def factory(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.125)


def test_functions_need_to_be_trusted(tmp_path: Path) -> None:
    """Also functions that a scheduler calls."""
    own = learner(optimizer=factory, scheduler=partial(LambdaLR, lr_lambda=slow_start))
    trainer = Trainer(**QUIET)
    trainer.fit(own, Digits())
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(UntrustedCheckpoint, match=r"is no class of type Optimizer: .* or trusted=\['.*factory'\]"):
        ForwardForward.load_from_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(UntrustedCheckpoint, match=r"slow_start' of lr_lambda"):
        ForwardForward.load_from_checkpoint(tmp_path / "own.ckpt", trusted=[f"{__name__}.factory"])
    model = ForwardForward.load_from_checkpoint(tmp_path / "own.ckpt", trusted=[__name__])
    assert model.lr == 0.125


def test_parts_of_this_package_and_torch_are_built(tmp_path: Path) -> None:
    parts: dict[str, Any] = {
        "negatives": WrongLabel(seed=4),
        "goodness": MeanSquare(),
        "readout": SoftmaxReadout(),
        "terms": [ActivationPenalty(0.1)],
        "augment": RandomShift(1),
        "optimizer": partial(SGD, lr=0.5),
        "scheduler": partial(StepLR, step_size=3),
        "block_optimizers": {"block*": partial(SGD, lr=0.25)},
    }
    trainer = Trainer(**QUIET)
    trainer.fit(learner(**parts), Digits())
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    model = ForwardForward.load_from_checkpoint(tmp_path / "own.ckpt")
    assert isinstance(model.network.readout, SoftmaxReadout)
    assert isinstance(model.negatives, WrongLabel)
    assert model.negatives.seed == 4
    assert isinstance(model.network.stack[0].terms[0], ActivationPenalty)  # type: ignore[index]
    assert model.scheduler.keywords == {"step_size": 3}  # type: ignore[union-attr]


def test_networks_of_torchvision_are_made_by_their_functions(saved: dict[str, Any], tmp_path: Path) -> None:
    from lightning_ff.trust import check_descriptions

    check_descriptions(ScalableForwardForward, {"model": {"class_path": "torchvision.models.resnet18"}})
    check_descriptions(ScalableForwardForward, {"model": "torchvision.models.resnet18"})
    check_descriptions(nn.Module, {"activation": {"class_path": "torch.nn.functional.relu"}})
    with pytest.raises(UntrustedCheckpoint):
        check_descriptions(ForwardForward, {"optimizer": {"class_path": "torchvision.models.resnet18"}})
