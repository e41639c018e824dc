"""BWBPF against plain torch: as described, as released, and with one sub-network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F

from lightning_ff import BWBPF, Backprop, OutputGoodness, PooledLinear
from tests.methods.class_runs import CLASSES, SGD, SHAPE, apart, data, fit, net, weights


@pytest.mark.parametrize(("segments", "detach"), [("local", True), ("sum_of_losses", False)])
def test_training_is_that_of_plain_torch(segments: str, detach: bool) -> None:
    model = BWBPF(net(), CLASSES, SHAPE, cuts="blocks", segments=segments, optimizer=SGD)
    expected = net()
    heads = [torch.nn.Linear(8, CLASSES) for _ in range(3)]
    for head, block in zip(heads, model.blocks, strict=False):
        assert isinstance(block.goodness, PooledLinear)
        assert block.goodness.projection is not None
        head.load_state_dict(block.goodness.projection.state_dict())
    stepping = SGD([*expected.parameters(), *(p for head in heads for p in head.parameters())])
    for x, y in data():
        h, loss = x, torch.zeros(())
        for k, stage in enumerate(expected.stages()):
            h = stage(h.detach() if detach else h)
            loss = loss + F.cross_entropy(h if k == 3 else heads[k](h.mean((2, 3))), y)
        loss.backward()
        stepping.step()
        stepping.zero_grad()
    fit(model)
    assert apart(weights(model.model), weights(expected)) < 2e-5
    assert model.blocks[0].goodness is not None
    assert apart(weights(model.blocks[0].goodness), {f"projection.{k}": v for k, v in weights(heads[0]).items()}) < 2e-5


def test_one_sub_network_is_backprop() -> None:
    models = [method(net(), CLASSES, SHAPE, cuts=1, optimizer=SGD) for method in (BWBPF, Backprop)]
    for model in models:
        fit(model)
    assert apart(weights(models[0].model), weights(models[1].model)) == 0
    assert apart(weights(models[0].model), weights(net())) > 0


def test_the_first_blocks_learn_from_their_own_loss_alone() -> None:
    """Another head on the second block changes what it learns, and not what the first one does."""
    model, other = (BWBPF(net(), CLASSES, SHAPE, cuts="blocks", optimizer=SGD) for _ in range(2))
    other.load_state_dict(model.state_dict())
    torch.nn.init.ones_(other.blocks[1].goodness.projection.weight)  # type: ignore[union-attr, arg-type]
    for each in (model, other):
        fit(each)
    assert apart(weights(model.blocks[0]), weights(other.blocks[0])) == 0
    assert apart(weights(model.blocks[1]), weights(other.blocks[1])) > 0


def test_the_last_block_predicts_and_the_model_is_exported() -> None:
    model = BWBPF(net(), CLASSES, SHAPE, cuts=["first"], optimizer=SGD)
    assert [type(block.goodness) for block in model.blocks] == [PooledLinear, OutputGoodness]
    fit(model)
    model.eval()
    x = data(1)[0][0]
    torch.testing.assert_close(model(x), model.model.eval()(x))
    exported = torch.export.export(model.deploy(), (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


def test_a_checkpoint_loads(tmp_path: Path) -> None:
    model = BWBPF(net(), CLASSES, SHAPE, cuts="blocks", optimizer=SGD)
    fit(model, steps=2, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    again = BWBPF.load_from_checkpoint(tmp_path / "last.ckpt", model=net(seed=2))
    assert apart(weights(again), weights(model)) == 0


def test_heads_are_drawn_anew_for_other_classes() -> None:
    model = BWBPF(net(), CLASSES, SHAPE, cuts="blocks", optimizer=SGD)
    model.reset_heads(7)
    fit(model)
    assert model(data(1)[0][0]).shape == (6, 7)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="num_classes=4: make the model with 4 outputs"):
        BWBPF(net(), 4, SHAPE)
    with pytest.raises(TypeError, match="BWBPF has no argument 'goodness'"):
        BWBPF(net(), CLASSES, SHAPE, goodness=PooledLinear())
