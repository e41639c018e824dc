"""`ff_fsdp2` on two gloo processes against one process on the same global batches, and its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import seed_everything
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.strategies import StrategyRegistry

from lightning_ff import GreedySchedule, LocalFSDP2Strategy
from tests.strategies.fsdp2_script import uneven
from tests.strategies.runs import (
    ADAMW,
    BATCH,
    EXAMPLE,
    SGD,
    Shares,
    accuracy,
    difference,
    last_weights,
    layers,
    learner,
    printed,
    trained,
)

TWO = ("--trainer.strategy=ff_fsdp2", "--trainer.devices=2", "--data.batch_size=25")
pytestmark = [
    pytest.mark.usefixtures("forked_python"),
    pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here"),
]


@pytest.fixture(scope="module")
def of_two(forked_python: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the weights that two processes have trained."""
    folder = tmp_path_factory.mktemp("fsdp2")
    printed("-m", "tests.strategies.fsdp2_script", str(folder))
    return folder


@pytest.mark.parametrize("mode", ["pair", "class"])
@pytest.mark.parametrize(
    ("optimizer", "dtype", "bound"), [("SGD", "float64", 1e-9), ("ADAMW", "float64", 1e-9), ("SGD", "float32", 1e-5)]
)
def test_two_processes_equal_one(mode: str, optimizer: str, dtype: str, bound: float, of_two: Path) -> None:
    two = torch.load(of_two / f"{mode}-{optimizer}-{dtype}.pt")
    model: Any = learner(mode, {"SGD": SGD, "ADAMW": ADAMW}[optimizer])
    whole = sum(p.numel() for p in model.parameters())
    assert difference(trained(model, 1, getattr(torch, dtype)), two["weights"]) <= bound
    assert two["share"] < 0.7 * whole  # a process holds about half; rows of a tensor stay together


def test_a_greedy_schedule_computes_frozen_blocks_again(of_two: Path) -> None:
    two = torch.load(of_two / "greedy.pt")["weights"]
    one = trained(learner("class", SGD), 1, torch.float64, callbacks=[GreedySchedule(2)], max_epochs=-1)
    assert difference(one, two) <= 1e-9


def test_processes_may_have_other_numbers_of_validation_batches(of_two: Path, tmp_path: Path) -> None:
    two, one = json.loads((of_two / "uneven.json").read_text()), uneven(str(tmp_path), processes=1)
    assert one.keys() == two.keys() >= {"val/acc", "val/loss"}
    for key, value in one.items():
        assert two[key] == pytest.approx(value, abs=1e-6), key


def test_running_statistics_are_means_over_processes(of_two: Path) -> None:
    """After one batch: a tenth of the mean of both batches, and of the mean of their variances."""
    seed_everything(0, verbose=False)
    conv = layers(batch_norm=True)[0][0]  # type: ignore[index]
    images = Shares().samples.tensors[0][:BATCH]
    with torch.no_grad():
        outputs = [conv(images[rank::2]).transpose(0, 1).flatten(1) for rank in (0, 1)]
    means, variances = (torch.stack([f(h) for h in outputs]) for f in (lambda h: h.mean(1), lambda h: h.var(1)))
    assert float((means[0] - means[1]).abs().max()) > 1e-3
    for rank in (0, 1):
        found = torch.load(of_two / f"statistics{rank}.pt")
        torch.testing.assert_close(found["running_mean"], 0.1 * means.mean(0))
        torch.testing.assert_close(found["running_var"], 0.9 + 0.1 * variances.mean(0))


def test_kept_outputs_are_refused(tmp_path: Path) -> None:
    printed("-m", "tests.strategies.fsdp2_script", str(tmp_path), "refused")
    assert "cache=True is not exact here: every process has a share" in (tmp_path / "refused").read_text()


@pytest.mark.slow
def test_checkpoints_are_for_one_process_too_and_the_run_goes_on_from_them() -> None:
    quiet = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--model.widths=[64,48]")
    run = ("-m", "lightning_ff", "fit", f"--config={EXAMPLE}", *quiet, *TWO, "--trainer.check_val_every_n_epoch=4")
    run = (*run, "--trainer.limit_train_batches=20", "--model.scheduler=null")
    of_two = accuracy(printed(*run, "--trainer.max_epochs=9", "--test_after_fit=true"))
    last = "logs/digits/version_0/checkpoints/last.ckpt"
    of_one = accuracy(printed("-m", "lightning_ff", "test", f"--config={EXAMPLE}", *quiet, f"--ckpt_path={last}"))
    assert of_one == of_two > 0.85
    before = len([*Path("logs/digits").iterdir()])
    printed(*run, "--trainer.max_epochs=6")
    again = f"--ckpt_path=logs/digits/version_{before}/checkpoints/last.ckpt"
    printed(*run, "--trainer.max_epochs=9", again)
    assert difference(last_weights(0), last_weights(before + 1)) == 0.0


def test_another_module_is_refused_and_the_name_is_known() -> None:
    assert isinstance(StrategyRegistry.get("ff_fsdp2"), LocalFSDP2Strategy)
    strategy = LocalFSDP2Strategy()
    with pytest.raises(TypeError, match="LocalFSDP2Strategy trains block by block, and BoringModel is no LocalLearner"):
        strategy.connect(BoringModel())
