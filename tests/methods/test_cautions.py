"""Errors and warnings of methods on a cut network, and their default readouts."""

from __future__ import annotations

import re
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_ff import (
    Backprop,
    DeepSupervision,
    IntervalReadout,
    LastReadout,
    MeanReadout,
    PredSim,
    ScalableForwardForward,
)
from tests.methods.class_runs import CLASSES, SGD, SHAPE, Net, apart, data, fit, learner, net, quiet, weights


def test_where_the_last_block_alone_has_a_loss_it_answers() -> None:
    model = learner(segments="last", normalization="none")
    control = Backprop(net(), CLASSES, SHAPE, optimizer=SGD)
    for each in (model, control):
        fit(each)
        each.eval()
        assert isinstance(each.network.readout, LastReadout)
    x = data(1)[0][0]
    assert torch.equal(model(x), model.block_scores(x)[-1])
    torch.testing.assert_close(model(x), control(x), rtol=1e-4, atol=1e-4)
    assert isinstance(learner(segments="last", readout=MeanReadout()).network.readout, MeanReadout)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"frozen": 2},
            {},
            "1,424 parameters do not require gradients and will not learn: 240 in block00 (stem), 1,184 in block01 "
            "(first). Unless that is meant, call model.requires_grad_(True) before",
        ),
        (
            {"frozen": 2},
            {"frozen": 1},
            "1,184 parameters do not require gradients and will not learn: 1,184 in block01",
        ),
        ({"head": "none"}, {}, "45 parameters do not require gradients and will not learn: 45 in block03 (fc). Unless"),
    ],
)
def test_what_an_earlier_learner_froze_is_named(first: Any, second: Any, message: str) -> None:
    network = net()
    learner(network, **first)
    with pytest.warns(UserWarning, match=re.escape(f"model=Net: {message}")) as seen:
        learner(network, **second)
    assert len(seen) == 1


def test_what_is_frozen_here_is_not_named() -> None:
    """The suite turns warnings into errors."""
    network = net()
    for _ in range(2):
        learner(network, frozen=2)
    again = net()
    for _ in range(2):
        learner(again, head="none")
    learner(again.requires_grad_(True))


def encoder() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class Pooled(nn.Module):
    """Tokens through an encoder, with the mean of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x).mean(1)


@pytest.mark.parametrize(
    ("make", "classes", "shape", "reason"),
    [
        (
            lambda: nn.DataParallel(net()),
            CLASSES,
            SHAPE,
            "DataParallel is kept whole as torch's own modules are: give the Net that DataParallel wraps, its "
            "attribute `module`, or name modules",
        ),
        (
            Pooled,
            8,
            (5, 8),
            "TransformerEncoder is kept whole as torch's own modules are: put its layers into the model in place of "
            "TransformerEncoder, such as nn.Sequential(*encoder.layers), or name modules",
        ),
        (
            lambda: nn.Linear(4, 3),
            3,
            (4,),
            "there is no place to cut between two weight layers: cuts='layers' cuts across skips too, or name modules",
        ),
    ],
)
def test_a_model_that_was_not_cut_is_named(make: Any, classes: int, shape: Any, reason: str) -> None:
    with pytest.warns(UserWarning, match=re.escape(f"in ordinary backprop; {reason}")) as seen:
        model = ScalableForwardForward(make(), classes, shape)
    assert len(seen) == 1
    assert len(model.blocks) == 1


def test_one_block_that_was_asked_for_is_not_named() -> None:
    assert len(learner(cuts=1).blocks) == 1
    assert len(Backprop(nn.Linear(4, 3), 3, (4,)).blocks) == 1


class Dropping(nn.Module):
    """A network that reads its own mode in its forward, and has a container around its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.body(x).mean((2, 3)), 0.5, self.training))


def test_the_whole_network_follows_the_learners_mode() -> None:
    network = Dropping()
    model = ScalableForwardForward(network, CLASSES, SHAPE, normalization="none", readout=LastReadout(), optimizer=SGD)
    fit(model, steps=2)
    x = data(1)[0][0]
    assert model.eval() is model
    assert [m.training for m in network.modules()] == [False] * 6
    assert torch.equal(model.model(x), model(x))
    model.train()
    assert [m.training for m in network.modules()] == [True] * 6
    assert not torch.equal(model.model(x), model.model(x))
    model.model.eval()  # its own mode is used until the learner's mode is set
    assert torch.equal(model.model(x), model.model(x))


class Several(nn.Module):
    """A network that returns a tuple, or a dictionary, instead of class scores."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 8, 3), nn.Linear(8, CLASSES), nn.Linear(8, 3)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        h = self.conv(x).relu()
        scores = self.one(h.mean((2, 3)))
        return {"out": scores} if self.kind == "dict" else (scores, self.two(h.mean((2, 3))))


def maps(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, channels, 1))


@pytest.mark.parametrize("cuts", ["blocks", "layers"])
@pytest.mark.parametrize("method", [ScalableForwardForward, Backprop, DeepSupervision])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Net(1000),
            "model=Net has 1000 outputs, and num_classes=5: make the model with 5 outputs, or begin with "
            "num_classes=1000 and call reset_heads(5)",
        ),
        (
            partial(Several, "tuple"),
            "model=Several gives 2 tensors, of shapes (5,), (3,) per input: wrap it in a module that returns the class "
            "scores alone",
        ),
        (partial(Several, "dict"), "block01 gives a dict, and a block gives a tensor (N, ...) or a tuple of tensors"),
        (
            lambda: maps(CLASSES),
            "model=Sequential gives a tensor of shape (5, 6, 6) per input, no vector of num_classes=5 class scores",
        ),
    ],
)
def test_a_model_whose_output_is_not_the_class_scores(make: Any, message: str, method: Any, cuts: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        method(make(), CLASSES, SHAPE, cuts=cuts)


def test_outputs_that_are_not_asked_for_are_left_alone() -> None:
    assert learner(maps(4), head="auxiliary")(data(1)[0][0]).shape == (6, CLASSES)
    assert len(learner(Net(1000), head="none").blocks) == 3
    moved = ScalableForwardForward(Net(1000), 1000, SHAPE)
    moved.reset_heads(CLASSES)  # as the message advises
    assert moved(data(1)[0][0]).shape == (6, CLASSES)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_channels_last_in_every_dimension(dims: int) -> None:
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    shape = (3, *[6] * dims)

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            conv(3, 4, 3), nn.ReLU(), conv(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 2**dims, CLASSES)
        )

    plain, last = (Backprop(network(), CLASSES, shape, channels_last=c) for c in (False, True))
    weight: Any = last.model[2].weight  # type: ignore[index]
    assert weight.stride()[1] == (1 if dims > 1 else 3)
    x = torch.randn(2, *shape)
    torch.testing.assert_close(last(x), plain(x), rtol=1e-4, atol=1e-5)


def test_the_segments_of_a_control_are_its_own() -> None:
    with pytest.raises(ValueError, match=r"segments='last': DeepSupervision is one segment with the sum of all losses"):
        DeepSupervision(net(), CLASSES, SHAPE, segments="last")
    with pytest.raises(ValueError, match=r"segments='local': Backprop is one segment with the last loss, leave it out"):
        Backprop(net(), CLASSES, SHAPE, segments="local")


def test_a_checkpoint_of_another_method_is_named(tmp_path: Path) -> None:
    model = learner()
    fit(model, steps=1, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    path = tmp_path / "last.ckpt"
    with pytest.raises(
        TypeError, match=r"Backprop has no argument 'goodness', .*'readout': .*Backprop\(\.\.\., weights=FILE\) begins"
    ):
        Backprop.load_from_checkpoint(path, model=net(seed=1))
    begun = Backprop(net(seed=1), CLASSES, SHAPE, weights=str(path))  # as the message advises
    assert apart(weights(begun.model), weights(model.model)) == 0
    with pytest.raises(TypeError, match="PredSim has no argument 'terms': leave it out, or use Scalable"):
        PredSim(net(), CLASSES, SHAPE, terms=[])


@pytest.mark.parametrize("flags", [{}, {"limit_val_batches": 0}])
def test_a_readout_that_is_never_fitted_is_named(flags: dict[str, Any]) -> None:
    model = learner(readout=IntervalReadout())
    loaders: list[Any] = [DataLoader(data(2), batch_size=None)] * (2 if flags else 1)  # type: ignore[arg-type]
    with pytest.warns(
        UserWarning, match=r"readout=IntervalReadout is fitted on validation data, of which this run has"
    ):
        quiet(**flags).fit(model, *loaders)
    assert model.network.readout.interval == (0, 3)


@pytest.mark.parametrize("flags", [{}, {"check_val_every_n_epoch": 2, "max_epochs": 2, "num_sanity_val_steps": 0}])
def test_a_readout_that_is_fitted_is_not_named(flags: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quiet(**flags).fit(learner(readout=IntervalReadout()), *[DataLoader(data(2), batch_size=None)] * 2)  # type: ignore[arg-type]
        quiet().fit(learner(), DataLoader(data(2), batch_size=None))  # type: ignore[arg-type]
    assert not [str(w.message) for w in seen if "is fitted on validation data" in str(w.message)]
