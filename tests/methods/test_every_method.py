"""What holds for each method: exact resumption, checkpoints of plain data, deployment, strategies, no loop."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch.multiprocessing.spawn import ProcessRaisedException

import lightning_ff
from lightning_ff import LocalLearner
from tests.methods.every_method import METHODS, OWN_STATISTICS, TOGETHER
from tests.strategies.runs import Ddp, Look, Pipeline, Shares, difference, trained
from tests.sweep.parts import resumes_exactly

FOLDER = Path(lightning_ff.__file__).parent / "methods"
IMAGES = Shares().samples.tensors[0][:7]
EXPORTED = {"CaFo", "CwC", "DeeperForward", "ForwardForward", "TRGL", "UFF"}  # the others have no other modules
every = pytest.mark.parametrize("name", METHODS)
gloo = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")


def test_the_table_has_every_method() -> None:
    public = [getattr(lightning_ff.methods, name) for name in lightning_ff.methods.__all__]
    learners = {each.__name__ for each in public if isinstance(each, type) and issubclass(each, LocalLearner)}
    assert learners == METHODS.keys()


@every
def test_resumes_in_mid_epoch_exactly(name: str, tmp_path: Path) -> None:
    resumes_exactly(METHODS[name], tmp_path / "saved.ckpt")


@every
def test_a_checkpoint_of_plain_data_predicts_the_same(name: str, tmp_path: Path) -> None:
    model = METHODS[name]()
    trained(model, 1)
    model.trainer.save_checkpoint(tmp_path / "saved.ckpt")
    again = type(model).load_from_checkpoint(tmp_path / "saved.ckpt", weights_only=True)
    assert torch.equal(again(IMAGES), model(IMAGES))


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in EXPORTED)) for n in METHODS])
def test_the_deployed_module_exports(name: str) -> None:
    model = METHODS[name]()
    trained(model, 1)
    plain = model.deploy()
    expected = model(IMAGES)
    assert torch.equal(plain(IMAGES), expected)
    program = torch.export.export(plain, (IMAGES,))
    torch.testing.assert_close(program.module()(IMAGES), expected)


@gloo
@pytest.mark.slow
@every
def test_two_processes_train_as_one(name: str, tmp_path: Path) -> None:
    """Exact in float64, but for statistics of a process's own batch; weights are equal in both processes."""
    double = torch.float64

    def save(trainer: Trainer, module: Any) -> None:
        torch.save(dict(module.named_parameters()), tmp_path / f"{trainer.global_rank}.pt")

    one = trained(METHODS[name](), 1, double)
    two = trained(METHODS[name](), 2, double, strategy=Ddp(), callbacks=[Look(save)])
    of_ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert all(torch.equal(value, of_ranks[1][key]) for key, value in of_ranks[0].items())
    if name in OWN_STATISTICS:
        start = METHODS[name]().double().state_dict()
        assert 0 < difference(one, two) < 0.5 * difference(one, start)
    else:
        assert difference(one, two) < 1e-9


@gloo
@pytest.mark.slow
@every
def test_a_pipeline_of_two_stages(name: str) -> None:
    model = METHODS[name]()
    if name in TOGETHER:
        with pytest.raises(ProcessRaisedException, match=r"use strategy='ff_ddp'"):
            trained(model, 2, strategy=Pipeline())
        return
    assert difference(trained(METHODS[name](), 1), trained(model, 2, strategy=Pipeline())) == 0.0


# Methods choose parts

RUNS = {"backward", "step", "forward", "run", "sweep", "grad"}


def loops(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes within loops."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.For, ast.While, ast.AsyncFor)):
            for statement in node.body:
                yield from ast.walk(statement)


def forbidden(source: str) -> list[str]:
    """Calls in loops that run a block, a backward or a step."""
    found = []
    for node in loops(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            if last in {"backward", "step", "forward", "run", "sweep", "grad"} or called in {
                "block",
                "layer",
                "layers",
            }:
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_a_method_is_a_short_file_without_a_loop_over_blocks(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 140
    assert forbidden(source) == []


def test_the_search_finds_loops() -> None:
    assert forbidden("for block in blocks:\n    h = block(h)\n    loss.backward()") == ["block(h)", "loss.backward()"]


def test_a_trainer_is_all_that_is_needed() -> None:
    """Every method runs with its defaults of optimizer and parts."""
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    model = lightning_ff.CwC(4, (1, 6, 6), channels=[8, 8])
    Trainer(**quiet, max_steps=2, accelerator="cpu", enable_checkpointing=False).fit(model, Shares())
    assert model.local_optimizers.param_groups[0]["lr"] == 0.01
