"""Scalable Forward-Forward against a loop in plain torch, on a small residual network."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_ff import AuxiliaryGoodness, LastReadout, ScalableForwardForward, Schedule
from lightning_ff.learner.summary import block_table
from tests.methods.class_runs import (
    ADAM,
    CLASSES,
    SGD,
    SHAPE,
    STEPS,
    Net,
    apart,
    data,
    fit,
    learner,
    net,
    quiet,
    weights,
)


def heads(model: ScalableForwardForward) -> list[tuple[Tensor, Tensor]]:
    """Copies of the auxiliary convolutions, all but the classifier's."""
    found = [block.goodness for block in model.blocks[:-1]]
    return [(g.weight.detach().clone(), g.offset.detach().clone()) for g in found]  # type: ignore[union-attr, operator]


def layer_norm(h: Tensor) -> Tensor:
    flat = h.flatten(1)
    return ((flat - flat.mean(1, keepdim=True)) / (flat.var(1, unbiased=False, keepdim=True) + 1e-8).sqrt()).view_as(h)


class Reference:
    """Algorithm of arXiv 2501.03176 block by block, written out."""

    def __init__(self, model: Net, aux: list[tuple[Tensor, Tensor]], normed: bool, cut: bool, refresh: bool) -> None:
        self.blocks = model.stages()
        self.aux = [(w.requires_grad_(), b.requires_grad_()) for w, b in aux]
        self.normed, self.cut, self.refresh = normed, cut, refresh

    def train(self, optimizer: Any, dtype: torch.dtype) -> None:
        own = [
            [*block.parameters(), *(self.aux[k] if k < len(self.aux) else ())] for k, block in enumerate(self.blocks)
        ]
        optimizers = [optimizer(parameters) for parameters in own]
        for x, y in data():
            h, total = x.to(dtype), torch.zeros((), dtype=dtype)
            for k, block in enumerate(self.blocks):
                z = block(h)
                loss = F.cross_entropy(self.goodness(k, z), y)
                if self.cut:
                    loss.backward()
                    optimizers[k].step()
                    optimizers[k].zero_grad()
                    h = layer_norm(self.again(block, h) if self.refresh else z).detach()
                else:
                    total, h = total + loss, layer_norm(z)
            if not self.cut:
                total.backward()
                for each in optimizers:
                    each.step()
                    each.zero_grad()

    def goodness(self, k: int, z: Tensor) -> Tensor:
        if k == len(self.aux):
            return z
        weight, bias = self.aux[k]
        answer = F.conv2d(layer_norm(z) if self.normed else z, weight, bias, padding=weight.shape[-1] // 2)
        return answer.pow(2).mean((2, 3))

    @staticmethod
    def again(block: nn.Module, h: Tensor) -> Tensor:
        before = {name: value.clone() for name, value in block.state_dict().items()}
        with torch.no_grad():
            z = block(h)
            for name, value in block.state_dict().items():
                if "running" in name or "tracked" in name:
                    value.copy_(before[name])
        return z


VARIANTS: dict[str, dict[str, Any]] = {
    "raw": {},
    "normalized": {"goodness_from": "normalized"},
    "kernel 3": {"goodness": AuxiliaryGoodness(kernel_size=3)},
    "steps per block": {"step": "block"},
    "summed": {"backward": "summed"},
    "recomputed": {"recompute": True},
    "refreshed": {"step": "block", "refresh_output": True},
    "deep supervision": {"segments": "sum_of_losses"},
}


@pytest.mark.parametrize(("optimizer", "precision", "bound"), [(ADAM, "64-true", 1e-9), (SGD, "32-true", 2e-5)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_a_plain_torch_loop(variant: str, optimizer: Any, precision: Any, bound: float) -> None:
    arguments = VARIANTS[variant]
    model = learner(optimizer=optimizer, **arguments)
    dtype = torch.float64 if precision == "64-true" else torch.float32
    aux = [(w.to(dtype), b.to(dtype)) for w, b in heads(model)]
    expected = net().to(dtype)
    normed, cut = variant == "normalized", variant != "deep supervision"
    start = weights(expected)
    Reference(expected, aux, normed, cut, refresh=variant == "refreshed").train(optimizer, dtype)
    fit(model, precision=precision)
    assert apart(weights(model.model), weights(expected)) < bound
    assert apart(weights(model.model), start) > 1e-2
    for (weight, bias), (own, offset) in zip(aux, heads(model), strict=True):
        assert max((weight - own).abs().max(), (bias - offset).abs().max()) < bound


def test_a_refreshed_output_is_another_run() -> None:
    runs = [learner(step="block", refresh_output=refresh) for refresh in (False, True)]
    for model in runs:
        fit(model)
    assert apart(weights(runs[0].model), weights(runs[1].model)) > 1e-4
    tracked = "stem.1.num_batches_tracked"
    assert int(runs[1].model.state_dict()[tracked]) == STEPS  # the second pass leaves the statistics alone


class Only(Schedule):
    def __init__(self, k: int) -> None:
        self.k = k

    def learns(self, segment: Any, epoch: int) -> bool:
        return bool(segment.index == self.k)


@pytest.mark.parametrize("k", range(4))
def test_a_loss_reaches_its_own_block_alone(k: int) -> None:
    model = learner(optimizer=partial(torch.optim.SGD, lr=0.1))
    model.schedule = Only(k)
    before = [[p.clone() for p in block.parameters()] for block in model.blocks]
    fit(model, steps=1)
    for j, (block, start) in enumerate(zip(model.blocks, before, strict=True)):
        moved = [not torch.equal(p, old) for p, old in zip(block.parameters(), start, strict=True)]
        assert any(moved) if j == k else not any(moved)


def test_the_answer_is_the_mean_goodness_of_all_but_the_classifier() -> None:
    model = learner().eval()
    x = data(1)[0][0]
    h, goodness = x, []
    for stage, block in zip(model.model.stages()[:-1], model.blocks, strict=False):  # type: ignore[operator, union-attr]
        z = stage(h)
        goodness.append(block.goodness(z))  # type: ignore[misc]
        h = layer_norm(z)
    torch.testing.assert_close(model(x), torch.stack(goodness).mean(0), rtol=1e-4, atol=1e-5)
    assert model.network.scored == ["block00", "block01", "block02", "block03"]
    last = learner(readout=LastReadout()).eval()
    torch.testing.assert_close(last(x), last.model.stages()[-1](h), rtol=1e-4, atol=1e-5)  # type: ignore[operator, union-attr]


def test_without_normalisation_the_bare_model_predicts_too() -> None:
    model = learner(normalization="none", readout=LastReadout())
    fit(model)
    model.eval()
    x = data(1)[0][0]
    assert torch.equal(model.model.eval()(x), model(x))


@pytest.mark.parametrize(
    ("head", "scored", "trained"), [("local", 4, True), ("auxiliary", 4, True), ("none", 3, False)]
)
def test_the_models_own_classifier(head: Any, scored: int, trained: bool) -> None:
    model = learner(head=head)
    start = weights(model.model)
    fit(model)
    assert len(model.network.scored) == scored
    moved = {name: apart({name: value}, {name: start[name]}) > 0 for name, value in weights(model.model).items()}
    assert moved["fc.weight"] is trained
    assert moved["second.conv2.weight"]
    assert model.block_scores(data(1)[0][0])[-1].shape == (6, CLASSES)


def test_learning_rates_fall_with_depth() -> None:
    model = learner(lr_decay=0.5, block_optimizers={"block01": partial(torch.optim.SGD, lr=1.0)})
    fit(model, steps=1)
    rates = [group["lr"] for group in model.local_optimizers.param_groups]
    assert rates == pytest.approx([1e-2, 0.5, 1e-2 / 4, 1e-2 / 8])


def test_labels_and_scores_are_predicted() -> None:
    model = learner()
    parts = quiet().predict(model, DataLoader(data(2), batch_size=None))
    assert parts is not None
    assert [tuple(part["goodness"].shape) for part in parts] == [(6, 4, CLASSES)] * 2
    x = torch.cat([x for x, _ in data(2)])
    torch.testing.assert_close(torch.cat([part["scores"] for part in parts]), model(x).detach())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "resnet19"}, ValueError, "model='resnet19' is no classification model of torchvision"),
        ({"model": 3}, TypeError, "model=3 is a int: give a name of torchvision"),
        ({"head": "linear"}, ValueError, "head='linear': choose 'local'"),
        ({"frozen": 4}, ValueError, "frozen=4: must be at least 0 and leave one of the 4 blocks"),
        ({"frozen": -1}, ValueError, "frozen=-1"),
        ({"num_classes": 6}, ValueError, "model=Net has 5 outputs, and num_classes=6"),
        ({"weights": "nowhere.pt"}, FileNotFoundError, "weights='nowhere.pt': there is no such file"),
        ({"refresh_output": True}, ValueError, "refresh_output=True with step='batch'"),
        ({"lr_decay": 0.0}, ValueError, "lr_decay=0.0: must be above 0"),
        ({"goodness_from": "both"}, ValueError, "goodness_from='both': choose 'raw' or 'normalized'"),
        ({"goodness": "conv"}, TypeError, "goodness='conv'"),
        ({"cuts": "everywhere"}, ValueError, "cuts='everywhere'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"model": net(), "num_classes": CLASSES, "input_shape": SHAPE, **arguments}
    with pytest.raises(error, match=message):
        ScalableForwardForward(**given)


def test_the_summary_names_what_was_cut() -> None:
    table = block_table(learner().network).splitlines()
    assert [line.split()[1] for line in table[1:5]] == ["stem", "first", "second", "fc"]


def test_a_network_in_eval_mode_is_trained() -> None:
    model = learner(net().eval())
    fit(model)
    assert int(model.model.state_dict()["stem.1.num_batches_tracked"]) == STEPS


def test_convolutions_are_not_left_out_with_the_classifier() -> None:
    with pytest.raises(ValueError, match="head='none' would leave out the last block"):
        learner(cuts=["first"], head="none")
    assert len(learner(cuts=["first", "second"], head="none").blocks) == 2


def test_buffers_of_the_network_follow_a_cast() -> None:
    class Centred(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("centre", torch.zeros(1, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - self.centre)

    model = learner(Centred()).double()
    assert model.model.centre.dtype == torch.float64
    assert model.model.eval()(data(1)[0][0].double()).shape == (6, CLASSES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels_last": "no"}, "channels_last='no'"),
        ({"recompute": "yes"}, "recompute='yes'"),
        ({"goodness": AuxiliaryGoodness}, "goodness=AuxiliaryGoodness is a class"),
    ],
)
def test_words_for_switches(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        learner(**arguments)


class Words(nn.Module):
    """A network on 20 tokens, 6 of them at a time, given as they are or as floats."""

    def __init__(self, embedding: nn.Module, floats: bool = False) -> None:
        super().__init__()
        self.embedding = embedding
        self.hidden = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU())
        self.fc = nn.Linear(8, CLASSES)
        self.floats = floats
        self(torch.zeros(1, 6, dtype=torch.float32 if floats else torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(self.embedding(x.long() if self.floats else x)))


@pytest.mark.parametrize("embedding", [nn.Embedding, nn.EmbeddingBag])
def test_a_network_of_tokens_is_refused_with_what_to_do(embedding: type[nn.Module]) -> None:
    with pytest.raises(
        ValueError, match=r"block00 .*its input is of type torch\.float32; embed tokens before.* or wrap"
    ):
        ScalableForwardForward(Words(embedding(20, 4)), CLASSES, (6,))


class Positions(nn.Module):
    """Patches of an image, to which embedded positions are added; the positions come first among its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Embedding(16, 8)
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT
        return self.fc((tokens + self.positions(torch.arange(16))).relu().mean(1))


def test_an_embedding_of_positions_does_not_ask_for_tokens() -> None:
    torch.manual_seed(0)
    model = learner(Positions())
    start = weights(model.model)
    fit(model, steps=2)
    assert all(not torch.equal(value, start[name]) for name, value in weights(model.model).items())


def test_an_embedding_that_gets_tokens_as_floats_is_trained() -> None:
    net = Words(nn.Embedding(20, 4), floats=True)
    start = net.embedding.weight.detach().clone()
    x, y = torch.randint(3, 17, (12, 6)), torch.randint(0, CLASSES, (12,))
    model = ScalableForwardForward(net, CLASSES, (6,), optimizer=SGD)
    with pytest.raises(TypeError, match=r"inputs of type torch\.int64 do not fit weights of type torch\.float32"):
        quiet().fit(model, DataLoader([(x, y)], batch_size=None))  # type: ignore[arg-type]
    quiet().fit(model, DataLoader([(x.float(), y)], batch_size=None))  # type: ignore[arg-type]
    moved = (net.embedding.weight != start).any(1)
    assert moved.nonzero().flatten().tolist() == sorted(set(x.flatten().tolist()))
    torch.testing.assert_close(model.model(x.float()), net(x))
