"""Goodness of several local values, and targets of coarser classes, against plain torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from lightning_ff import (
    CrossEntropy,
    ForwardForward,
    GoodnessMonitor,
    LinearGoodness,
    LocalBlock,
    LocalLearner,
    LocalNetwork,
    PixelOverlay,
    SumReadout,
    SymBa,
    ThresholdLoss,
)
from lightning_ff.negatives import wrong_labels
from lightning_ff.objectives import Goodness, symba_loss, threshold_loss
from tests.strategies.runs import BATCH, CLASSES, SHAPE, Shares, Validated, difference, trained
from tests.sweep.parts import SGD, Reconstruction, Recorded, encoders, resumes_exactly

IMAGES, LABEL, INDEX = Shares().samples.tensors


class PositionSquare(Goodness):
    """Mean of squares over the channels of every position: `(N, L)`."""

    @override
    def forward(self, h: Tensor) -> Tensor:
        return h.square().mean(1).flatten(1)


def convolutions() -> list[nn.Module]:
    torch.manual_seed(2)
    return [nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 5, 2), nn.ReLU())]


def local_learner(loss: Any = SymBa, **arguments: Any) -> ForwardForward:
    layers, parts = convolutions(), {"goodness": PositionSquare(), "normalization": "none", "optimizer": SGD}
    labels = PixelOverlay(on_value=1.0)
    return ForwardForward(CLASSES, SHAPE, blocks=layers, loss=loss(), labels=labels, **{**parts, **arguments})


@pytest.mark.parametrize("loss", ["symba", "threshold"])
def test_the_loss_compares_local_values_one_by_one(loss: str) -> None:
    layers = convolutions()
    optimizers = [SGD(layer.parameters()) for layer in layers]
    labels = PixelOverlay(on_value=1.0)
    labels.build(CLASSES, SHAPE)
    for x, y, i in zip(IMAGES.split(BATCH), LABEL.split(BATCH), INDEX.split(BATCH), strict=True):
        wrong = wrong_labels(y, CLASSES, i, seed=0, epoch=0)
        h = torch.cat((labels(x, y), labels(x, wrong)))
        for layer, optimizer in zip(layers, optimizers, strict=True):
            h = layer(h.detach())
            positive, negative = (h**2).mean(1).flatten(1).chunk(2)
            if loss == "symba":
                value = torch.log1p(torch.exp(-4 * (positive - negative))).mean()
            else:
                value = torch.log1p(torch.exp(1 - positive)).mean() + torch.log1p(torch.exp(negative - 1)).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    model = local_learner(SymBa if loss == "symba" else ThresholdLoss)
    trained(model, 1)
    for block, layer in zip(model.blocks, layers, strict=True):
        for ours, theirs in zip(block.layers.parameters(), layer.parameters(), strict=True):
            assert (ours - theirs).abs().max() < 1e-5


def test_scores_and_metrics_are_those_of_the_mean() -> None:
    model = local_learner()
    x = IMAGES[:5]
    expected = []
    for c in range(CLASSES):
        h = model.blocks[0].layers(model.labels(x, torch.full((5,), c)))
        expected.append((h**2).mean((1, 2, 3)))
    assert torch.allclose(model.block_scores(x)[0], torch.stack(expected, 1), atol=1e-6)
    trained(model, 1, data=Validated, callbacks=[GoodnessMonitor(every_n_steps=5)])
    found = model.trainer.callback_metrics
    assert {"val/acc/block00", "goodness/separation/block01"} <= set(found)
    assert [block.loss.alpha for block in model.blocks] == [4.0, 4.0]  # type: ignore[union-attr]


@pytest.mark.parametrize("segments", ["sum_of_losses", "loss_of_sum", "last"])
def test_all_controls_take_local_values(segments: Any) -> None:
    """One loss for the network: on local values, or on the sum over blocks of their means."""
    network = nn.Sequential(*convolutions())
    optimizer, labels = SGD(network.parameters()), PixelOverlay(on_value=1.0)
    labels.build(CLASSES, SHAPE)
    for x, y, i in zip(IMAGES.split(BATCH), LABEL.split(BATCH), INDEX.split(BATCH), strict=True):
        h = torch.cat((labels(x, y), labels(x, wrong_labels(y, CLASSES, i, seed=0, epoch=0))))
        goodness = []
        for layer in network:
            h = layer(h)
            goodness.append((h**2).mean(1).flatten(1))
        if segments == "loss_of_sum":
            goodness = [sum(g.mean(1) for g in goodness)]  # type: ignore[list-item, misc]
        used = goodness[-1:] if segments == "last" else goodness
        losses = [F.softplus(-4 * (positive - negative)).mean() for positive, negative in (g.chunk(2) for g in used)]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    model = local_learner(segments=segments)
    trained(model, 1)
    for ours, theirs in zip(model.network.blocks.parameters(), network.parameters(), strict=True):
        assert (ours - theirs).abs().max() < 1e-5


def test_losses_of_values_in_rows_and_alone() -> None:
    positive, negative = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 3.0], [1.0, 1.0]])
    by_hand = sum(F.softplus(torch.tensor(2.0 * (n - p))) for n, p in [(0, 1), (3, 2), (1, 1), (1, 2)]) / 4
    assert torch.allclose(symba_loss(positive, negative, alpha=2.0), torch.as_tensor(by_hand))
    sides = F.softplus(1 - positive).mean() + F.softplus(negative - 1).mean()
    assert torch.equal(threshold_loss(positive, negative, 1.0), sides)


def test_the_default_threshold_is_that_of_one_value() -> None:
    model = local_learner(ThresholdLoss)
    assert [block.loss.bound for block in model.blocks] == [1.0, 1.0]  # type: ignore[union-attr]


MAP = [1, 0, 0, 1]


def coarse(class_map: Any = MAP, **arguments: Any) -> LocalLearner:
    """The first block learns two coarser classes, the second one all."""
    first, second = encoders()
    blocks = [
        LocalBlock(first, Recorded(), CrossEntropy(), terms=[Reconstruction()], class_map=class_map),
        LocalBlock(second, LinearGoodness(), CrossEntropy()),
    ]
    torch.manual_seed(6)
    network = LocalNetwork(blocks, SHAPE, CLASSES, SumReadout())
    return LocalLearner(network, **{"optimizer": SGD, **arguments})


def test_a_block_learns_coarser_classes() -> None:
    model, twin = coarse(), encoders()[0]
    first: Any = model.blocks[0]
    head = nn.Linear(10, 2)
    head.load_state_dict(first.goodness.head.state_dict())
    decoder = nn.Linear(10, 36)
    decoder.load_state_dict(first.terms[0].decoder.state_dict())
    optimizer = SGD([*twin.parameters(), *head.parameters(), *decoder.parameters()])
    for x, y in zip(IMAGES.split(BATCH), LABEL.split(BATCH), strict=True):
        h = twin(x)
        loss = F.cross_entropy(head(h), torch.tensor(MAP)[y]) + F.mse_loss(decoder(h), x.flatten(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trained(model, 1)
    mine = [*first.layers.parameters(), first.goodness.head.weight]
    for ours, theirs in zip(mine, [*twin.parameters(), head.weight], strict=True):
        assert (ours - theirs).abs().max() < 1e-5
    scores = model.block_scores(IMAGES[:6])[0]
    assert torch.allclose(scores, head(twin(IMAGES[:6]))[:, MAP], atol=1e-5)
    assert model(IMAGES[:6]).shape == (6, CLASSES)
    assert model.deploy()(IMAGES[:6]).shape == (6, CLASSES)


def test_metrics_of_a_block_with_coarser_classes() -> None:
    model = coarse()
    trained(model, 1, data=Validated, callbacks=[GoodnessMonitor(every_n_steps=5)])
    scores = model.block_scores(IMAGES)[0]
    expected = (scores.argmax(1) == LABEL).double().mean()
    assert float(model.trainer.callback_metrics["val/acc/block00"]) == pytest.approx(float(expected))


def test_coarser_classes_resume_exactly(tmp_path: Path) -> None:
    resumes_exactly(coarse, tmp_path / "saved.ckpt")


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
@pytest.mark.parametrize("make", [coarse, local_learner, partial(coarse, segments=[2])])
def test_two_processes_equal_one(make: Any) -> None:
    assert difference(trained(make(), 1, torch.float64), trained(make(), 2, torch.float64)) < 1e-9


@pytest.mark.parametrize(
    ("class_map", "error", "message"),
    [
        ([0, 0, 2, 2], ValueError, "number the coarser classes from 0 without a gap"),
        ([], ValueError, "without a gap"),
        ([-1, 0, 1, 1], ValueError, "without a gap"),
        ([0, 1], ValueError, "give one number for each of 4 classes"),
        ([0.0, 1.0, 1.0, 0.0], TypeError, r"class_map\[0\]=0.0"),
    ],
)
def test_refused_class_maps(class_map: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        coarse(class_map)


def test_pair_mode_has_no_class_map() -> None:
    block = LocalBlock(convolutions()[0], PositionSquare(), SymBa(), class_map=MAP)
    with pytest.raises(ValueError, match=r"class_map=\[1, 0, 0, 1\] of block00: leave it out in pair mode"):
        LocalNetwork([block], SHAPE, CLASSES, SumReadout(), PixelOverlay())


def test_pair_goodness_of_another_shape_is_refused() -> None:
    class Scalar(Goodness):
        @override
        def forward(self, h: Tensor) -> Tensor:
            return h.mean()

    with pytest.raises(ValueError, match=r"pair mode needs \(2,\), one number per sample, or \(2, L\)"):
        ForwardForward(CLASSES, SHAPE, widths=[4], goodness=Scalar())
