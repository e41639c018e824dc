"""The controls against plain torch: end-to-end backprop, deep supervision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.models import resnet18

from lightning_ff import MLP, ActivationPenalty, Backprop, DeepSupervision, ScalableForwardForward
from lightning_ff.methods import backbone
from lightning_ff.sweep import make_segments
from tests.methods.class_runs import ADAM, CLASSES, SGD, SHAPE, apart, data, fit, net, quiet, weights


@pytest.mark.parametrize(("optimizer", "precision", "bound"), [(ADAM, "64-true", 1e-9), (SGD, "32-true", 2e-5)])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("cuts", ["blocks", "layers", 1])
def test_backprop_is_backprop(cuts: Any, recompute: bool, optimizer: Any, precision: Any, bound: float) -> None:
    dtype = torch.float64 if precision == "64-true" else torch.float32
    expected = net().to(dtype)
    stepping = optimizer(expected.parameters())
    for x, y in data():
        F.cross_entropy(expected(x.to(dtype)), y).backward()
        stepping.step()
        stepping.zero_grad()
    model = Backprop(net(), CLASSES, SHAPE, cuts=cuts, recompute=recompute, optimizer=optimizer)
    fit(model, precision=precision)
    assert apart(weights(model.model), weights(expected)) < bound
    model.eval()
    x = data(1)[0][0].to(model.dtype)  # type: ignore[arg-type]
    torch.testing.assert_close(model(x), expected.eval()(x.to(dtype)).to(x.dtype), rtol=1e-3, atol=1e-4)


def test_deep_supervision_is_one_segment_with_every_loss() -> None:
    model = DeepSupervision(net(), CLASSES, SHAPE, optimizer=SGD)
    assert [(s.name, s.blocks) for s in make_segments(model.network, model.segments)] == [("network", (0, 1, 2, 3))]
    expected = net()
    aux = [
        (g.weight.detach().clone().requires_grad_(), g.offset.detach().clone().requires_grad_())  # type: ignore[union-attr, operator]
        for g in (block.goodness for block in model.blocks[:-1])
    ]
    stepping = SGD([*expected.parameters(), *(p for pair in aux for p in pair)])
    for x, y in data():
        h, loss = x, torch.zeros(())
        for k, stage in enumerate(expected.stages()):
            h = stage(h)
            goodness = h if k == 3 else F.conv2d(h, *aux[k]).pow(2).mean((2, 3))
            loss = loss + F.cross_entropy(goodness, y)
        loss.backward()
        stepping.step()
        stepping.zero_grad()
    fit(model)
    assert apart(weights(model.model), weights(expected)) < 2e-5


def test_a_checkpoint_of_backprop_loads(tmp_path: Path) -> None:
    model = Backprop(net(), CLASSES, SHAPE, optimizer=SGD)
    fit(model, steps=2, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    again = Backprop.load_from_checkpoint(tmp_path / "last.ckpt", model=net(seed=2))
    assert apart(weights(again), weights(model)) == 0


@pytest.mark.parametrize("method", [ScalableForwardForward, Backprop])
def test_trained_weights_load_into_torchvisions_own_class(method: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = method("resnet18", CLASSES, (3, 32, 32), optimizer=SGD)
    keep = ModelCheckpoint(tmp_path, save_last=True)
    trainer = quiet(enable_checkpointing=True, callbacks=[keep])
    trainer.fit(model, DataLoader([(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))] * 2, batch_size=None))  # type: ignore[arg-type]
    assert trainer.global_step == 2
    plain = resnet18(num_classes=CLASSES)
    plain.load_state_dict(model.model.state_dict())
    assert apart(weights(plain), weights(model.model)) == 0
    assert apart(weights(plain), weights(resnet18(num_classes=CLASSES))) > 0
    copy = method.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)  # the name is all it needs
    assert apart(weights(copy.model), weights(plain)) == 0
    assert apart(weights(backbone("resnet18", CLASSES, (3, 32, 32), str(tmp_path / "last.ckpt"))), weights(plain)) == 0


def test_leading_blocks_may_be_frozen() -> None:
    model = Backprop(net(), CLASSES, SHAPE, frozen=2, optimizer=SGD)
    expected = net()
    for part in (expected.stem, expected.first):
        part.requires_grad_(False)
    stepping = SGD([p for p in expected.parameters() if p.requires_grad])
    for x, y in data():
        expected.train()
        expected.stem.eval()
        expected.first.eval()
        F.cross_entropy(expected(x), y).backward()
        stepping.step()
        stepping.zero_grad()
    fit(model)
    assert apart(weights(model.model), weights(expected)) < 2e-5
    with pytest.raises(ValueError, match="frozen=4: must be at least 0 and leave one of the 4 blocks"):
        Backprop(net(), CLASSES, SHAPE, frozen=4)


def test_the_classifier_is_drawn_anew_for_other_classes() -> None:
    model = Backprop(net(), CLASSES, SHAPE, optimizer=SGD)
    fit(model)
    before = weights(model.model)
    model.reset_heads(7)
    after = weights(model.model)
    assert after["fc.weight"].shape == (7, 8)
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("fc."))
    assert model(data(1)[0][0]).shape == (6, 7)
    assert model.hparams["num_classes"] == 7
    fit(model)
    assert not torch.equal(weights(model.model)["fc.weight"], after["fc.weight"])


class Shuffled(nn.Module):
    """Layers registered in another order than they run in."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.last = nn.Conv2d(8, classes, 1)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.extra = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu()).mean((2, 3))


def test_the_classifier_is_the_layer_that_runs_last(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Backprop(Shuffled(CLASSES), CLASSES, SHAPE)
    first = weights(model.model)["first.weight"]
    torch.save(model.model.state_dict(), tmp_path / "net.pt")
    model.reset_heads(9)
    assert model(data(1)[0][0]).shape == (6, 9)
    other = Backprop(Shuffled(3), 3, SHAPE, weights=str(tmp_path / "net.pt"))
    assert torch.equal(weights(other.model)["first.weight"], first)
    assert other(data(1)[0][0]).shape == (6, 3)


def test_a_weight_made_in_every_call_is_not_computed_again() -> None:
    def normed() -> nn.Module:
        torch.manual_seed(0)
        layer = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 3))
        return nn.Sequential(layer, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, CLASSES))

    once, again = (Backprop(normed(), CLASSES, SHAPE, recompute=r, optimizer=SGD) for r in (False, True))
    fit(once)
    fit(again)
    assert apart(weights(once.model), weights(again.model)) < 1e-6


@pytest.mark.parametrize("weight", [0.0, 0.01])
def test_a_penalty_acts_on_all_hidden_activations_and_not_on_the_scores(weight: float) -> None:
    def perceptron() -> MLP:
        torch.manual_seed(0)
        return MLP(CLASSES, 192, [12, 9])

    expected = perceptron()
    stepping = SGD(expected.parameters())
    for x, y in data():
        h1 = expected[0](x)
        h2 = expected[1](h1)
        (F.cross_entropy(expected[2](h2), y) + weight * (h1.sum() + h2.sum())).backward()
        stepping.step()
        stepping.zero_grad()
    model = Backprop(perceptron(), CLASSES, SHAPE, terms=[ActivationPenalty(weight)], optimizer=SGD)
    fit(model)
    assert apart(weights(model.model), weights(expected)) < 2e-5


def test_terms_come_back_with_a_checkpoint(tmp_path: Path) -> None:
    model = Backprop(MLP(CLASSES, 192, [8]), CLASSES, SHAPE, terms=[ActivationPenalty(0.25)])
    fit(model, steps=1, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    again = Backprop.load_from_checkpoint(tmp_path / "last.ckpt")
    assert apart(weights(again), weights(model)) == 0
    assert [[str(term) for term in block.terms] for block in again.blocks] == [
        ["ActivationPenalty(weight=0.25, reduction='sum')"],
        [],
    ]
