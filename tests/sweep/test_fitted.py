"""A goodness that is solved at the end of an epoch: a ridge regression, with and without other learning parts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_ff import (
    CrossEntropy,
    GreedySchedule,
    Labels,
    LinearGoodness,
    LocalBlock,
    LocalDDPStrategy,
    LocalLearner,
    LocalNetwork,
    LocalPipelineStrategy,
    SoftmaxReadout,
    Sweep,
)
from lightning_ff.optim import make_optimizers
from lightning_ff.strategies.pipeline import check
from tests.strategies.runs import BATCH, CLASSES, SHAPE, STEPS, Pipeline, Shares, Validated, difference, trained
from tests.sweep.parts import SGD, Ridge, SaveAt, Stored, encoders, plain_ridge, resumes_exactly

IMAGES, LABEL = (tensor for tensor in Shares().samples.tensors[:2])


def learner(learns: bool = False, **arguments: Any) -> LocalLearner:
    """Two fixed blocks with a fitted goodness; the first one may learn from a linear goodness instead."""
    first, second = encoders()
    first.requires_grad_(learns)
    second.requires_grad_(False)
    torch.manual_seed(5)
    blocks = [LocalBlock(first, *([LinearGoodness(), CrossEntropy()] if learns else [Ridge()]))]
    blocks.append(LocalBlock(second, Ridge(), CrossEntropy()))
    network = LocalNetwork(blocks, SHAPE, CLASSES, SoftmaxReadout())
    return LocalLearner(network, **{"optimizer": SGD, **arguments})


def features(first: torch.nn.Module | None = None) -> list[Tensor]:
    layers = encoders()
    with torch.no_grad():
        h = (first or layers[0])(IMAGES)
        return [h, layers[1](h)]


def solved(model: LocalLearner) -> list[Tensor]:
    return [block.goodness.weight.double() for block in model.blocks if isinstance(block.goodness, Ridge)]


def test_one_epoch_solves_the_ridge_regression_without_an_optimizer() -> None:
    model = learner()
    trained(model, 1, max_epochs=1)
    for weight, rows in zip(solved(model), features(), strict=True):
        assert (weight - plain_ridge(rows, LABEL)).abs().max() < 1e-5
    assert model.trainer.global_step == STEPS
    assert model.local_optimizers.by_block == {}
    assert all(float(block.goodness.gram.abs().max()) == 0.0 for block in model.blocks)  # type: ignore[union-attr]


def test_the_fit_comes_before_the_validation_of_the_epoch() -> None:
    model = learner()
    trained(model, 1, data=Validated, log_every_n_steps=5)
    scores = [rows.double() @ plain_ridge(rows, LABEL) for rows in features()]
    total = sum(each.softmax(1) for each in scores)
    assert isinstance(total, Tensor)
    found = model.trainer.callback_metrics
    assert float(found["val/acc"]) == pytest.approx(float((total.argmax(1) == LABEL).double().mean()))
    assert float(found["val/acc/block01"]) == pytest.approx(float((scores[1].argmax(1) == LABEL).double().mean()))
    assert float(found["train/loss"]) == pytest.approx(torch.log(torch.tensor(4.0)).item())  # scores were 0


def test_beside_a_block_that_learns_by_gradients() -> None:
    """Features of the second block are those of every batch's own weights."""
    model, twin = learner(learns=True), encoders()[0]
    start = learner(learns=True)
    twin.load_state_dict(start.blocks[0].layers.state_dict())
    head: Any = torch.nn.Linear(10, CLASSES)
    head.load_state_dict(start.blocks[0].goodness.projection.state_dict())  # type: ignore[union-attr]
    optimizer = SGD([*twin.parameters(), *head.parameters()])
    rows: list[Tensor] = []
    for x, y in zip(IMAGES.split(BATCH), LABEL.split(BATCH), strict=True):
        rows.append(encoders()[1](twin(x)).detach())
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(twin(x)), y).backward()
        optimizer.step()
    trained(model, 1)
    assert list(model.local_optimizers.by_block) == ["block00"]
    assert (solved(model)[0] - plain_ridge(torch.cat(rows), LABEL)).abs().max() < 1e-4


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("step", [13, 20, 33])
def test_resumes_exactly(learns: bool, step: int, tmp_path: Path) -> None:
    resumed = resumes_exactly(partial(learner, learns), tmp_path / "saved.ckpt", step)
    assert resumed.global_step == 2 * STEPS
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)["state_dict"]
    assert (float(saved["network.blocks.1.goodness.gram"].abs().max()) > 0) == (step % STEPS > 0)


def test_sums_of_an_epoch_that_was_cut_short_do_not_count_in_the_next_fit() -> None:
    model = learner()
    trained(model, 1, max_epochs=5, max_steps=STEPS // 2)
    assert float(model.state_dict()["network.blocks.1.goodness.gram"].abs().max()) > 0
    trained(model.train(), 1, max_epochs=1)
    for weight, rows in zip(solved(model), features(), strict=True):
        assert (weight - plain_ridge(rows, LABEL)).abs().max() < 1e-5


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
@pytest.mark.parametrize("strategy", [None, Pipeline])
@pytest.mark.parametrize("learns", [False, True])
def test_two_processes_equal_one(learns: bool, strategy: Any) -> None:
    one = trained(learner(learns), 1, torch.float64)
    two = trained(learner(learns), 2, torch.float64, strategy and strategy())
    assert difference(one, two) < 1e-9
    assert float(one["network.blocks.1.goodness.weight"].abs().max()) > 1e-2


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
def test_a_checkpoint_of_two_processes_in_mid_epoch_has_the_sums_of_both(tmp_path: Path) -> None:
    path = tmp_path / "saved.ckpt"
    whole = trained(learner(), 2, torch.float64, data=Stored, callbacks=[SaveAt(13, path)])
    gram = torch.load(path, weights_only=True)["state_dict"]["network.blocks.0.goodness.gram"]
    rows = encoders()[0].double()(IMAGES[: 13 * BATCH].double()).detach()
    assert (gram - rows.T @ rows).abs().max() < 1e-9
    for processes in (1, 2):
        resumed = learner().double()
        flags: dict[str, Any] = {"logger": False, "accelerator": "cpu", "max_epochs": 1, "precision": "64-true"}
        flags |= {"enable_model_summary": False, "enable_checkpointing": False, "devices": processes}
        flags["enable_progress_bar"] = False
        ours = LocalDDPStrategy(start_method="fork", process_group_backend="gloo") if processes == 2 else "auto"
        Trainer(**flags, strategy=ours).fit(resumed, Stored(), ckpt_path=path)
        assert difference(whole, resumed.state_dict()) < 1e-9


def test_windows_fit_only_what_learns() -> None:
    """Block after block: the second block's regression is of its own epoch; the first one's stays."""
    fits: list[tuple[int, str]] = []

    class Fits(LocalLearner):
        def on_train_epoch_end(self) -> None:
            for name, block in zip(self.network.names, self.blocks, strict=True):
                if float(block.goodness.weight.abs().max()) > 0:  # type: ignore[union-attr]
                    fits.append((self.current_epoch, name))

    model = Fits(learner().network)
    trained(model, 1, callbacks=[GreedySchedule(1)], max_epochs=2)
    assert fits == [(0, "block00"), (1, "block00"), (1, "block01")]


def test_without_a_trainer() -> None:
    network = learner().network
    sweep = Sweep(network, make_optimizers(network.owners, SGD))
    for x, y in zip(IMAGES.split(BATCH), LABEL.split(BATCH), strict=True):
        result = sweep(network.normalize(x), Labels(y))
    assert set(result.losses) == {"block01"}
    sweep.fit_parts()
    weight: Any = network.stack[0].goodness
    assert (weight.weight - plain_ridge(features()[0], LABEL)).abs().max() < 1e-5


def test_nothing_to_learn_is_still_refused() -> None:
    model = learner(learns=True)
    model.network.requires_grad_(False)
    owners = {"block00": model.blocks[0]}
    with pytest.raises(ValueError, match="no block has a trainable parameter"):
        make_optimizers(owners, SGD)


class TwoPipelines(LocalPipelineStrategy):
    """One stage each."""

    replicas = 2  # type: ignore[assignment]


def test_several_pipelines_are_refused() -> None:
    strategy = TwoPipelines(stages=1)
    strategy._lightning_module = learner()
    with pytest.raises(ValueError, match="several pipelines: use one pipeline"):
        check(strategy, Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"))
