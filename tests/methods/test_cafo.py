"""CaFo and direct feedback alignment: weights against plain torch, one pass, one and two processes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.nn import functional as F

from lightning_ff import UFF, Backprop, CaFo, ConvNet, DirectFeedback, ForwardForward, SolvedGoodness
from tests.strategies.runs import BATCH, CLASSES, SGD, SHAPE, STEPS, Ddp, Pipeline, Shares, difference, trained
from tests.sweep.parts import resumes_exactly

X, Y = Shares(torch.float64).samples.tensors[:2]
ONEHOT = F.one_hot(Y, CLASSES).double()
gloo = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")


def cafo(**arguments: Any) -> CaFo:
    torch.manual_seed(0)
    net = ConvNet(CLASSES, channels=1, widths=[4, 6], pools=[0])
    return CaFo(net, CLASSES, SHAPE, **arguments)


def features(model: CaFo) -> list[Tensor]:
    """Outputs of the random blocks, whose new batch norm is nearly the identity."""
    found, h = [], X
    net: Any = model.model
    for layers in list(net)[:-1]:
        h = F.relu(F.conv2d(h, layers[0].weight, padding=1) / (1 + layers[1].eps) ** 0.5)
        h = F.max_pool2d(h, 2) if len(layers) > 3 else h
        found.append(h)
    return found


def test_one_pass_solves_every_predictor() -> None:
    model = cafo(ridge=0.5).double()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    trained(model, 1, torch.float64)
    votes = torch.zeros(len(X), CLASSES, dtype=torch.float64)
    for block, h in zip(model.blocks, features(model), strict=True):
        rows = h.flatten(1)
        gram = rows.T @ rows + 0.5 * torch.eye(rows.shape[1], dtype=torch.float64)
        expected = torch.linalg.solve(gram, rows.T @ ONEHOT)
        torch.testing.assert_close(block.goodness.weight, expected, rtol=1e-8, atol=1e-10)  # type: ignore[union-attr]
        votes += (rows @ expected).softmax(1)
    torch.testing.assert_close(model(X), votes)
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    assert model.local_optimizers.by_block == {}
    assert model.trainer.global_step == STEPS


@pytest.mark.parametrize("predictor", ["ce", "sparsemax"])
def test_predictors_that_learn_by_gradients(predictor: Any) -> None:
    model = cafo(predictor=predictor, optimizer=SGD).double()
    heads = [torch.nn.Parameter(block.goodness.projection.weight.clone()) for block in model.blocks]  # type: ignore[union-attr]
    optimizer = SGD(heads)
    outputs = [h.flatten(1) for h in features(model)]
    for rows in torch.arange(len(X)).split(BATCH):
        losses = [loss_of(predictor, h[rows] @ head.T, Y[rows]) for h, head in zip(outputs, heads, strict=True)]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    trained(model, 1, torch.float64)
    for block, head in zip(model.blocks, heads, strict=True):
        torch.testing.assert_close(block.goodness.projection.weight, head, rtol=1e-6, atol=1e-8)  # type: ignore[union-attr]
    assert type(model.network.readout).__name__ == {"ce": "SoftmaxReadout", "sparsemax": "SparsemaxReadout"}[predictor]


def loss_of(predictor: str, scores: Tensor, label: Tensor) -> Tensor:
    if predictor == "ce":
        return F.cross_entropy(scores, label)
    ordered = scores.sort(1, descending=True).values
    total, losses = ordered.cumsum(1), []
    for row, sums, own, c in zip(ordered, total, scores, label, strict=True):
        size = max(k for k in range(1, CLASSES + 1) if 1 + k * row[k - 1] > sums[k - 1])
        threshold = (sums[size - 1] - 1) / size
        losses.append(-own[c] + (row[:size].square() - threshold**2).sum() / 2 + 0.5)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("step", [STEPS // 2, STEPS])
def test_sums_resume_in_mid_epoch(step: int, tmp_path: Path) -> None:
    resumes_exactly(cafo, tmp_path / "saved.ckpt", step)
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)["state_dict"]
    assert saved["network.blocks.0.goodness.gram"].numel() == (36**2 if step < STEPS else 0)


@gloo
@pytest.mark.parametrize("strategy", [Ddp, Pipeline])
def test_two_processes_solve_the_same(strategy: Callable[[], Any]) -> None:
    double = torch.float64
    one, two = (trained(cafo().double(), n, double, strategy=strategy()) for n in (1, 2))
    assert difference(one, two) < 1e-12


# Direct feedback


def deep() -> Backprop:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Flatten(), nn.Linear(36, 10), nn.Tanh()), nn.Sequential(nn.Linear(10, 8), nn.Tanh())]
    return Backprop(
        nn.Sequential(*layers, nn.Linear(8, CLASSES)), CLASSES, SHAPE, credit=DirectFeedback(3), optimizer=SGD
    )


def test_feedback_is_the_error_by_fixed_matrices() -> None:
    model = deep().double()
    first, second, last = (deepcopy(block.layers) for block in model.blocks)
    matrices = []
    for k, size in enumerate((10, 8)):
        drawn = torch.randn(CLASSES, size, generator=torch.Generator().manual_seed(3000 + k))
        matrices.append((drawn / drawn.norm(dim=1, keepdim=True)).double())
    optimizer = SGD([*first.parameters(), *second.parameters(), *last.parameters()])
    for x, y in zip(X.split(BATCH), Y.split(BATCH), strict=True):
        one = first(x)
        two = second(one.detach())
        scores = last(two.detach())
        error = (scores.softmax(1) - F.one_hot(y, CLASSES)).detach() / len(x)
        optimizer.zero_grad()
        ((one * (error @ matrices[0])).sum() + (two * (error @ matrices[1])).sum()).backward()
        F.cross_entropy(scores, y).backward()
        optimizer.step()
    trained(model, 1, torch.float64)
    for block, twin in zip(model.blocks, (first, second, last), strict=True):
        for ours, theirs in zip(block.layers.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_feedback_resumes_and_does_not_change_the_pass(tmp_path: Path) -> None:
    resumes_exactly(deep, tmp_path / "saved.ckpt")


@gloo
def test_feedback_on_two_processes_and_in_a_pipeline() -> None:
    double = torch.float64
    assert difference(*(trained(deep(), n, double, strategy=Ddp()) for n in (1, 2))) < 1e-12
    with pytest.raises(ProcessRaisedException, match=r"credit=DirectFeedback\(.*ff_ddp"):
        trained(deep(), 2, strategy=Pipeline())


def test_blocks_trained_by_feedback_are_the_weights_of_cafo(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = ConvNet(CLASSES, channels=1, widths=[4, 6], pools=[0])
    before = Backprop(net, CLASSES, SHAPE, credit=DirectFeedback(), optimizer=SGD)
    trained(before, 1)
    before.trainer.save_checkpoint(tmp_path / "blocks.ckpt")
    model = cafo(weights=str(tmp_path / "blocks.ckpt"))
    trained(model, 1)
    for name, value in net.state_dict().items():
        if not name.startswith("2."):  # the classifier is left out
            assert torch.equal(model.model.state_dict()[name], value), name
    assert (model(X.float()).argmax(1) == Y).float().mean() > 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cafo(predictor="rmse"), "predictor='rmse': choose"),
        (lambda: cafo(predictor="ce", ridge=1.0), "ridge=1.0 with predictor='ce': acts on 'mse' alone"),
        (lambda: cafo(segments="last"), "segments='last', credit=None: the predictors of CaFo learn one by one"),
        (lambda: cafo(credit=DirectFeedback()), r"credit=DirectFeedback\(seed=0\): the predictors of CaFo"),
        (lambda: SolvedGoodness(0), "ridge=0: must be above 0"),
        (lambda: DirectFeedback(-1), "seed=-1: must be at least 0"),
    ],
)
def test_bad_input(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_feedback_takes_class_scores_of_the_last_block() -> None:
    model = ForwardForward(CLASSES, SHAPE, widths=[8, 8], credit=DirectFeedback(), optimizer=SGD)
    with pytest.raises(ValueError, match=r"credit=DirectFeedback\(seed=0\) takes class scores"):
        trained(model, 1)
    cells = UFF(CLASSES, SHAPE, widths=[8, 8], credit=DirectFeedback(), optimizer=SGD)
    with pytest.raises(ValueError, match="learns from the loss of the last block, and block01 has none"):
        trained(cells, 1)


def test_one_credit_teaches_networks_of_different_widths() -> None:
    """Matrices of a block are drawn again for another shape, with any seed."""
    credit = DirectFeedback(2**62)
    for width in (5, 7):
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, width), nn.Tanh(), nn.Linear(width, CLASSES))
        trained(Backprop(net, CLASSES, SHAPE, cuts="layers", credit=credit, optimizer=SGD), 1, max_steps=1)
        assert credit._matrices[0].shape == (CLASSES, width)
