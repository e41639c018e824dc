"""Blocks that learn from terms alone, read out by features, against plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_ff import (
    ForwardForward,
    GoodnessMonitor,
    LinearReadout,
    LocalBlock,
    LocalLearner,
    LocalNetwork,
    Pairs,
    SparsityMonitor,
    SumReadout,
    Term,
    Unlabelled,
)
from tests.strategies.runs import CLASSES, SHAPE, Pipeline, Shares, Validated, difference, trained
from tests.sweep.parts import SGD, Reconstruction, encoders, resumes_exactly, unsupervised

BATCHES = list(DataLoader(Shares().samples, 12))


def test_equals_a_plain_torch_loop() -> None:
    model = unsupervised()
    layers = encoders()
    decoders = [nn.Linear(10, 36), nn.Linear(8, 10)]
    for decoder, block in zip(decoders, model.blocks, strict=True):
        decoder.load_state_dict(block.terms[0].decoder.state_dict())  # type: ignore[union-attr, arg-type, operator]
    head = nn.Linear(18, CLASSES)
    with torch.no_grad():
        parts: Any = model.network.readout.linear
        head.weight.copy_(torch.cat([part.weight for part in parts], 1))
        head.bias.copy_(parts[0].bias)
    optimizers = [SGD([*a.parameters(), *b.parameters()]) for a, b in zip(layers, decoders, strict=True)]
    optimizers.append(SGD(head.parameters()))
    losses: list[Tensor] = []
    for x, y, _ in BATCHES:
        features, losses = [], []
        h = x.flatten(1)
        for layer, decoder in zip(layers, decoders, strict=True):
            out = layer(h)
            losses.append((decoder(out) - h).square().mean())
            h = out.detach()
            features.append(h)
        losses.append(F.cross_entropy(head(torch.cat(features, 1)), y))
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    seen: dict[str, Any] = {}

    class Last(GoodnessMonitor):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *rest: Any) -> None:
            super().on_train_batch_end(trainer, pl_module, outputs, *rest)
            seen.update(outputs)

    trained(model, 1, callbacks=[Last(every_n_steps=3), SparsityMonitor()])
    for block, layer, decoder in zip(model.blocks, layers, decoders, strict=True):
        mine = [*block.layers.parameters(), *block.terms.parameters()]
        for ours, theirs in zip(mine, [*layer.parameters(), *decoder.parameters()], strict=True):
            assert (ours - theirs).abs().max() < 1e-5
    joined = torch.cat([part.weight for part in parts], 1)
    assert (joined - head.weight).abs().max() < 1e-5
    assert seen["goodness"] == {}
    expected = dict(zip(["block00", "block01", "readout"], losses, strict=True))
    assert {name: float(v) for name, v in seen["losses"].items()} == pytest.approx(
        {name: v.item() for name, v in expected.items()}, abs=1e-5
    )


def test_predict_and_deploy() -> None:
    model = unsupervised()
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    x = BATCHES[0][0]
    (found,) = trainer.predict(model, DataLoader(x, 12)) or []
    features = model.features(x)
    expected = sum(part(h) for part, h in zip(model.network.readout.linear, features, strict=True))  # type: ignore[arg-type]
    assert set(found) == {"label", "scores"}
    assert torch.allclose(found["scores"], expected, atol=1e-6)
    assert torch.equal(found["label"], found["scores"].argmax(1))
    deployed = model.deploy()
    assert torch.equal(deployed(x), model(x))
    assert not list(deployed.blocks[0].terms)  # type: ignore[union-attr, index]
    exported = torch.export.export(deployed, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


def test_metrics_of_each_block_that_is_read_out() -> None:
    model = unsupervised(LinearReadout(blocks=[-1]))
    trained(model, 1, data=Validated)
    found = model.trainer.callback_metrics
    assert {name for name in found if name.startswith("val/acc")} == {"val/acc", "val/acc/block01"}
    assert found["val/acc"] == found["val/acc/block01"]


@pytest.mark.parametrize("step", [13, 20])
def test_resumes_exactly(step: int, tmp_path: Path) -> None:
    resumes_exactly(unsupervised, tmp_path / "saved.ckpt", step)


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo here")
@pytest.mark.parametrize("strategy", [None, Pipeline])
def test_two_processes_equal_one(strategy: Any) -> None:
    one = trained(unsupervised(), 1, torch.float64)
    two = trained(unsupervised(), 2, torch.float64, strategy and strategy())
    assert difference(one, two) < 1e-9
    assert difference(one, {k: v.double() for k, v in unsupervised().state_dict().items()}) > 1e-3


@pytest.mark.parametrize(("precision", "wide"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_terms_get_wide_activations(precision: Any, wide: torch.dtype) -> None:
    model = unsupervised()
    trained(model.to(wide), 1, wide, precision=precision)
    assert model.blocks[1].terms[0].seen - {torch.float32} <= {wide}  # type: ignore[operator]
    assert wide in model.blocks[1].terms[0].seen  # type: ignore[operator]


def test_the_mode_follows_the_label_encoding() -> None:
    def network(labels: Any) -> LocalNetwork:
        blocks = [LocalBlock(layer, terms=[Reconstruction()]) for layer in encoders()]
        return LocalNetwork(blocks, SHAPE, CLASSES, LinearReadout(), labels)

    assert (network(None).mode, network(Unlabelled()).mode) == ("class", "pair")
    assert LocalLearner(network(Unlabelled())).negatives is not None


def test_a_loss_is_the_goodness_loss_and_the_terms() -> None:
    """Terms beside a goodness add to its loss, as before."""
    plain = ForwardForward(CLASSES, SHAPE, widths=[9])
    both = ForwardForward(CLASSES, SHAPE, widths=[9], terms=[Reconstruction()])
    both.load_state_dict(plain.state_dict(), strict=False)
    block, x = both.blocks[0], torch.rand(8, 36)
    h, g = block(x, positives=4)
    (term,) = block.term_losses(x, h, Pairs(4))
    decoder: Any = block.terms[0].decoder
    assert torch.allclose(term, (decoder(h) - x).square().mean())
    assert block.own_loss(g, Pairs(4)) is not None


class Old(Term):
    """Written for the earlier release."""

    def build(self, shape: torch.Size) -> None:  # type: ignore[override]
        self.size = shape.numel()


@pytest.mark.parametrize(
    ("blocks", "readout", "message"),
    [
        ([{}], LinearReadout(), "no goodness at all: give every block one of the same mode"),
        ([{"terms": [Reconstruction()]}], SumReadout(), "no block has one: use LinearReadout"),
    ],
)
def test_refused_networks(blocks: list[Any], readout: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocalNetwork([LocalBlock(encoders()[0], **each) for each in blocks], SHAPE, CLASSES, readout)


def test_a_block_without_any_objective_is_refused() -> None:
    first, last = encoders()
    blocks = [LocalBlock(first), LocalBlock(last, terms=[Reconstruction()])]
    with pytest.raises(ValueError, match="block00 has goodness=None, which segments='local' needs"):
        LocalLearner(LocalNetwork(blocks, SHAPE, CLASSES, LinearReadout()))


def test_build_of_the_earlier_release_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Old.build gets .* write def build\(self, shape, inputs, num_classes\)"):
        LocalNetwork([LocalBlock(encoders()[0], terms=[Old()])], SHAPE, CLASSES, LinearReadout())
