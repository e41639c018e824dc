"""CwC, DeeperForward, Mono-Forward, predsim and Hyperspherical FF: weights after an epoch of a plain torch loop."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_ff
from lightning_ff import (
    ILT,
    CwC,
    DeeperForward,
    HypersphericalFF,
    LastReadout,
    LinearReadout,
    LocalLearner,
    MonoForward,
    OutputGoodness,
    PredSim,
    SumReadout,
)
from tests.methods.every_method import METHODS
from tests.strategies.runs import BATCH, CLASSES, SGD, SHAPE, Shares, Validated, trained

ROOT = Path(__file__).parents[2]
X, Y = Shares(torch.float64).samples.tensors[:2]
Loss = Callable[[Any, Tensor, Tensor], Tensor]  # of a block's copy, its output and labels


def plain(model: LocalLearner, loss: Loss, hand_over: Callable[[Tensor], Tensor], x: Tensor = X) -> list[Any]:
    """Copies of the blocks, whose layers and heads learn one by one from a loss that is written out."""
    twins: list[Any] = deepcopy(model.blocks)
    optimizers = [SGD(twin.parameters()) for twin in twins]
    for images, label in zip(x.split(BATCH), Y.split(BATCH), strict=True):
        h: Any = images
        for twin, optimizer in zip(twins, optimizers, strict=True):
            h = twin.layers(*h) if isinstance(h, tuple) else twin.layers(h)
            value = loss(twin, h[0] if isinstance(h, tuple) else h, label)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            rest = tuple(each.detach() for each in h[1:]) if isinstance(h, tuple) else ()
            h = hand_over(h[0] if rest else h).detach()
            h = (h, *rest) if rest else h
    return twins


def assert_equal(model: LocalLearner, twins: list[Any]) -> None:
    moved = 0.0
    for block, twin, start in zip(model.blocks, twins, METHODS[type(model).__name__]().double().blocks, strict=True):
        for ours, theirs, before in zip(block.parameters(), twin.parameters(), start.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
            moved += float((ours - before).abs().sum().detach())
    assert moved > 1


def groups(h: Tensor) -> Tensor:
    return torch.stack([part.flatten(1).mean(1) for part in h.chunk(CLASSES, 1)], 1)


def similar(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(1, keepdim=True)
    return torch.cosine_similarity(centred[:, None], centred[None], dim=2)


def predsim(twin: Any, h: Tensor, label: Tensor) -> Tensor:
    if isinstance(twin.goodness, OutputGoodness):
        return F.cross_entropy(h, label)
    head, projection = twin.goodness.projection, twin.terms[0].projection
    difference = similar(h @ projection.weight.T) - similar(F.one_hot(label, CLASSES).double())
    return 0.01 * F.cross_entropy(head(h), label) + 0.99 * difference.square().mean()


def hyperspherical(twin: Any, h: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(16 * torch.cosine_similarity(h[:, None], twin.goodness.prototypes[None], dim=2), label)


def standardized(x: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(x, (1, 2, 3), correction=0, keepdim=True)
    return (x - mean) / deviation


@pytest.mark.parametrize(
    ("name", "loss", "hand_over", "x"),
    [
        ("CwC", lambda twin, h, y: F.cross_entropy(groups(h.square()), y), nn.Identity(), X),
        (
            "DeeperForward",
            lambda twin, h, y: F.cross_entropy(groups(h), y),
            lambda h: F.group_norm(h, CLASSES),
            standardized(X),
        ),
        (
            "MonoForward",
            lambda twin, h, y: F.cross_entropy(h @ twin.goodness.projection.weight.T, y),
            nn.Identity(),
            X,
        ),
        ("PredSim", predsim, nn.Identity(), X),
        ("HypersphericalFF", hyperspherical, F.normalize, X),
    ],
)
def test_equals_a_plain_loop(name: str, loss: Loss, hand_over: Any, x: Tensor) -> None:
    model = METHODS[name]().double()
    twins = plain(model, loss, hand_over, x)
    trained(model, 1, torch.float64)
    assert_equal(model, twins)


def test_skips_leave_the_order_of_the_goodness_and_the_normalised_map_has_none() -> None:
    """The skip's groups have mean 0: the goodness is that of the convolution, scaled by its share of the channels."""
    torch.manual_seed(0)
    model = DeeperForward(CLASSES, SHAPE, channels=[8, 8, 8, 12, 12], readout=SumReadout()).double()
    x = X[:5]
    outputs = list(model.network.run(model.network.normalize(x)))
    for k in (2, 4):
        before, layer = outputs[k - 1].onwards, model.blocks[k].layers
        convolved = groups(layer.convolution(before[0]).relu())
        torch.testing.assert_close(outputs[k].goodness, convolved * (layer.convolution.out_channels / (8, 12)[k // 4]))
    for output in outputs:
        onwards = output.onwards if isinstance(output.onwards, Tensor) else output.onwards[0]
        assert groups(onwards).abs().max() < 1e-14


def test_channels_that_grow_are_concatenated_within_their_class() -> None:
    model = DeeperForward(CLASSES, SHAPE, channels=[8, 12, 12], pools=[])
    layer: Any = model.blocks[2].layers
    assert layer.convolution.out_channels == 4
    x, skip = torch.rand(2, 12, 6, 6), torch.rand(2, 8, 6, 6)
    own = layer.convolution(x).relu()
    expected = torch.cat([part for c in range(4) for part in (own[:, c : c + 1], skip[:, 2 * c : 2 * c + 2])], 1)
    assert torch.equal(layer(x, skip), expected)


def test_the_published_network_has_17_convolutions() -> None:
    model = DeeperForward(10, (3, 32, 32))
    assert len(model.blocks) == 17
    ends = [tuple(shape[0]) for shape in model.network.shapes[::4]]
    assert ends == [(100, 32, 32), (100, 16, 16), (200, 8, 8), (400, 4, 4), (800, 4, 4)]


def test_published_windows_and_the_epochs_of_a_head() -> None:
    schedule = ILT("cifar10", "acc", head=True)
    assert schedule.windows == [[(0, 11)], [(0, 16)], [(0, 21)], [(0, 25)]]
    assert (schedule.length, ILT("cifar10", "acc").length) == (50, 25)
    with pytest.raises(ValueError, match="data='cifar100', pace='fast': choose one of mnist fast/acc"):
        ILT("cifar100", "fast")


def test_a_head_learns_alone_after_the_last_window() -> None:
    """Blocks keep their weights, and the head does not."""
    seen: list[list[Tensor]] = []

    class Watch(lightning_ff.WindowSchedule):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            super().on_train_epoch_end(trainer, pl_module)
            seen.append(
                [p.clone() for part in (pl_module.network.blocks, pl_module.network.readout) for p in part.parameters()]
            )

    model = CwC(CLASSES, SHAPE, channels=[8, 8], readout=LinearReadout(blocks=[-1]), optimizer=SGD)
    trained(model, 1, max_epochs=3, callbacks=[Watch([[(0, 1)], [(0, 2)]], epochs=3)])
    assert len(seen) == 3
    assert all(torch.equal(a, b) for a, b in zip(seen[1][:-2], seen[2][:-2], strict=True))
    assert not torch.equal(seen[1][-2], seen[2][-2])


def test_epochs_in_which_nothing_learns_are_refused() -> None:
    model = CwC(CLASSES, SHAPE, channels=[8, 8], optimizer=SGD)
    with pytest.raises(ValueError, match=r"epochs=3: .* readout=LastReadout\(\) has none: use LinearReadout"):
        trained(model, 1, max_epochs=3, callbacks=[lightning_ff.WindowSchedule([[(0, 1)], [(0, 2)]], epochs=3)])
    with pytest.raises(ValueError, match="epochs=1 ends before the last window, at 2"):
        lightning_ff.WindowSchedule([[(0, 1)], [(0, 2)]], epochs=1)


def test_superclasses_of_early_blocks() -> None:
    model = CwC(CLASSES, SHAPE, channels=[8, 8], class_maps=[[0, 0, 1, 1], None], optimizer=SGD)
    trained(model, 1, data=Validated)
    first, last = model.network.scores(X[:3].float())
    assert torch.equal(first[:, 0], first[:, 1])
    assert model.blocks[0].goodness.num_classes == 2  # type: ignore[union-attr]
    assert last.shape == (3, CLASSES)


def test_the_published_superclasses_of_cifar100() -> None:
    config = yaml.safe_load((ROOT / "examples/family/cwc_cifar100.yaml").read_text())["model"]["init_args"]
    model = CwC(100, (3, 32, 32), **config)
    assert [block.goodness.num_classes for block in model.blocks] == [20] * 4 + [100] * 2  # type: ignore[union-attr]
    assert config["class_maps"] == [[label // 5 for label in range(100)]] * 4 + [None] * 2


def test_predictions_are_those_of_the_last_block() -> None:
    for name in ("CwC", "MonoForward", "PredSim"):
        assert isinstance(METHODS[name]().network.readout, LastReadout)
    assert [type(block.goodness).__name__ for block in METHODS["MonoForward"]().blocks] == ["LinearGoodness"] * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CwC(4, SHAPE, channels=[8, 9]), "channels=9 of block 1, after 8: give multiples of its 4 classes"),
        (lambda: CwC(4, SHAPE, channels=[]), r"blocks=\[\]"),
        (lambda: CwC(4, SHAPE, [8], class_maps=[]), "class_maps has 0 entries for 1 blocks"),
        (lambda: CwC(0, SHAPE), "num_classes=0: must be at least 2"),
        (lambda: CwC(4, SHAPE, [8], class_maps=[3]), r"class_maps\[0\]=3 is a int: give the coarser"),  # type: ignore[list-item]
        (lambda: CwC(4, SHAPE, [8], class_maps=[[]]), r"class_map=\[\]: number the coarser classes"),
        (lambda: DeeperForward(0, SHAPE), "num_classes=0: must be at least 2"),
        (lambda: DeeperForward(4, SHAPE, [8, 8], pools=[0, 0], skips=False), r"pools=\[0, 0\]: .* name each once"),
        (lambda: DeeperForward(4, (1, 2, 2), [4, 4], pools=[0], skips=False), "groups=4 for an activation of shape"),
        (lambda: MonoForward(nn.Linear(36, 4), 4, (36,)), "leave Linear one block, its classifier"),
        (lambda: CwC(4, (36,)), r"input_shape=\(36,\): give channels, height and width"),
        (lambda: DeeperForward(4, SHAPE, channels=[8, 9, 8]), "give multiples of num_classes=4"),
        (lambda: DeeperForward(4, SHAPE, channels=[8, 8]), "give an odd number"),
        (lambda: DeeperForward(4, SHAPE, channels=[8, 8, 4]), "must not shrink"),
        (lambda: DeeperForward(4, SHAPE, channels=[8], pools=[1]), r"pools=\[1\]: there are 1 blocks"),
        (lambda: PredSim(nn.Linear(36, 4), 4, (36,), share=1.5), r"share=1.5: must lie in \[0, 1\]"),
        (lambda: MonoForward(nn.Linear(36, 4), 4, (36,), bias=2), "bias"),
        (lambda: HypersphericalFF(nn.Linear(36, 4), 4, (36,), scale=0), "scale=0: must be above 0"),
    ],
)
def test_bad_input(make: Callable[[], LocalLearner], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
