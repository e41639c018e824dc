"""Scalable Forward-Forward: initial weights, frozen blocks, checkpoints, other classes, deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from lightning_ff import AuxiliaryGoodness, ConvNet, CrossEntropy, IntervalReadout, MeanReadout, ScalableForwardForward
from tests.methods.class_runs import CLASSES, SHAPE, Net, apart, data, fit, learner, net, quiet, weights


def test_frozen_blocks_stay_and_have_no_say() -> None:
    model = learner(frozen=2)
    start = weights(model.model)
    fit(model)
    now = weights(model.model)
    assert all(torch.equal(now[name], start[name]) for name in now if name.startswith(("stem", "first")))
    assert not torch.equal(now["second.conv1.weight"], start["second.conv1.weight"])
    assert model.network.scored == ["block02", "block03"]
    assert list(model.local_optimizers.by_block) == ["block02", "block03"]
    readout = model.network.readout
    assert isinstance(readout, MeanReadout)
    assert readout.blocks == [0]  # of the two with a goodness, the one that is not the classifier


def test_frozen_blocks_stay_under_deep_supervision_too() -> None:
    model = learner(frozen=2, segments="sum_of_losses")
    start = weights(model.model)
    fit(model)
    now = weights(model.model)
    assert all(torch.equal(now[name], start[name]) for name in now if name.startswith(("stem", "first")))
    assert not torch.equal(now["second.conv1.weight"], start["second.conv1.weight"])


def test_a_checkpoint_holds_the_readout_and_gives_the_model_back(tmp_path: Path) -> None:
    model = learner()
    keep = ModelCheckpoint(tmp_path, save_last=True)
    fit(model, enable_checkpointing=True, callbacks=[keep])
    path = tmp_path / "last.ckpt"
    copy = ScalableForwardForward.load_from_checkpoint(path, model=net(seed=5), weights_only=True)
    assert apart(weights(copy), weights(model)) == 0
    assert apart(weights(copy.model), weights(model.model)) == 0
    with pytest.raises(ValueError, match="model"):
        ScalableForwardForward.load_from_checkpoint(path)
    begun = learner(net(seed=7), weights=str(path))  # weights of a checkpoint to begin another run with
    assert apart(weights(begun.model), weights(model.model)) == 0


def test_weights_from_a_file_and_for_other_classes(tmp_path: Path) -> None:
    source = net(seed=3)
    torch.save(source.state_dict(), tmp_path / "net.pt")
    same = learner(net(seed=4), weights=str(tmp_path / "net.pt"))
    assert apart(weights(same.model), weights(source)) == 0
    torch.manual_seed(4)
    other = Net(classes=7)
    drawn = other.fc.weight.detach().clone()
    seven = ScalableForwardForward(other, 7, SHAPE, weights=str(tmp_path / "net.pt"))
    loaded, own = weights(seven.model), weights(source)
    assert torch.equal(loaded["fc.weight"], drawn.double())
    assert all(torch.equal(loaded[name], own[name]) for name in own if not name.startswith("fc."))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(ValueError, match=r"are of another network than Net, which has no weight"):
        learner(weights=str(tmp_path / "linear.pt"))


def test_heads_are_drawn_anew_for_other_classes(tmp_path: Path) -> None:
    model = learner()
    fit(model)
    before = weights(model.model)
    model.reset_heads(7)
    after = weights(model.model)
    assert after["fc.weight"].shape == (7, 8)
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("fc."))
    assert [tuple(scores.shape) for scores in model.block_scores(data(1)[0][0])] == [(6, 7)] * 4
    batches = [(x, y + 2) for x, y in data(4)]  # labels up to 6
    keep = ModelCheckpoint(tmp_path, save_last=True)
    quiet(enable_checkpointing=True, callbacks=[keep]).fit(model, *[DataLoader(batches, batch_size=None)] * 2)
    assert not torch.equal(weights(model.model)["fc.weight"], after["fc.weight"])
    copy = ScalableForwardForward.load_from_checkpoint(tmp_path / "last.ckpt", model=Net(7))
    assert apart(weights(copy), weights(model)) == 0
    assert model.model.fc is dict(model.blocks[-1].layers.named_modules())["fc"]  # type: ignore[union-attr]


def test_heads_are_drawn_anew_for_as_many_classes(tmp_path: Path) -> None:
    torch.save(net(seed=3).state_dict(), tmp_path / "net.pt")
    model = learner(weights=str(tmp_path / "net.pt"))
    before = weights(model)
    assert torch.equal(weights(model.model)["fc.weight"], net(seed=3).fc.weight.double())  # carried over as it is
    model.reset_heads(CLASSES)
    drawn = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    heads = {f"network.blocks.{k}.goodness.{part}" for k in range(3) for part in ("weight", "offset")}
    assert drawn == {*heads, "network.blocks.3.layers.fc.weight", "network.blocks.3.layers.fc.bias"}


def test_a_deployed_model_is_plain_and_gives_the_same(tmp_path: Path) -> None:
    model = learner(readout=IntervalReadout(softmax=True), goodness=AuxiliaryGoodness(3))
    quiet().fit(model, *[DataLoader(data(), batch_size=None)] * 2)
    model.eval()
    deployed, x = model.deploy(), data(1)[0][0]
    assert torch.equal(deployed(x), model(x))
    assert not any(p.requires_grad for p in deployed.parameters())
    assert all(p.requires_grad for p in model.blocks[0].parameters())
    assert not any(isinstance(m, CrossEntropy) for m in deployed.modules())
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(deployed, (x,), dynamic_shapes=({0: batch},)).module()
    for n in (2, 6):
        torch.testing.assert_close(exported(x[:n]), model(x[:n]))


def test_a_deployed_model_runs_in_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = learner()
    fit(model)
    model.eval()
    x, path = data(1)[0][0], tmp_path / "net.onnx"
    torch.onnx.export(model.deploy(), (x,), str(path), dynamo=True, input_names=["x"])
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(scores), model(x), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_needs_no_weights_that_it_began_with(tmp_path: Path) -> None:
    torch.save(net(seed=3).state_dict(), tmp_path / "net.pt")
    model = learner(weights=str(tmp_path / "net.pt"))
    fit(model, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    (tmp_path / "net.pt").unlink()
    copy = ScalableForwardForward.load_from_checkpoint(tmp_path / "last.ckpt", model=net())
    assert apart(weights(copy), weights(model)) == 0


def test_a_refused_number_of_classes_changes_nothing() -> None:
    model = learner()
    before = weights(model)
    with pytest.raises(ValueError, match="num_classes=1: must be at least 2"):
        model.reset_heads(1)
    assert apart(weights(model), before) == 0


def test_weights_without_a_classifier_leave_it_as_drawn(tmp_path: Path) -> None:
    model = learner(head="none")
    fit(model, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    fresh = net(seed=6)
    drawn = fresh.fc.weight.detach().clone()
    begun = weights(learner(fresh, weights=str(tmp_path / "last.ckpt")).model)
    assert torch.equal(begun["fc.weight"], drawn.double())
    trained = weights(model.model)
    assert all(torch.equal(begun[name], trained[name]) for name in trained if not name.startswith("fc."))


def test_an_exchanged_readout_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    model = learner()
    model.exchange_readout(MeanReadout(blocks=[-1], softmax=True))
    fit(model, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    copy = ScalableForwardForward.load_from_checkpoint(tmp_path / "last.ckpt", model=net(seed=2)).eval()
    assert isinstance(copy.network.readout, MeanReadout)
    assert copy.network.readout.blocks == [-1]
    assert torch.equal(copy(data(1)[0][0]), model.eval()(data(1)[0][0]))


def test_a_checkpoint_says_how_a_network_of_this_package_was_made(tmp_path: Path) -> None:
    model = ScalableForwardForward(ConvNet(CLASSES, 3, [4, 6], pools=[1]), CLASSES, SHAPE)
    fit(model, steps=1, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    assert apart(weights(ScalableForwardForward.load_from_checkpoint(tmp_path / "last.ckpt")), weights(model)) == 0


def test_weights_of_a_deeper_network_and_of_other_files_are_refused(tmp_path: Path) -> None:
    class Deeper(Net):
        def __init__(self) -> None:
            super().__init__()
            self.third = nn.Linear(2, 2)

    torch.save(Deeper().state_dict(), tmp_path / "deeper.pt")
    with pytest.raises(ValueError, match=r"are of another network than Net, which has no third\.weight"):
        learner(weights=str(tmp_path / "deeper.pt"))
    for name, content in {"list.pt": [1, 2], "model.pt": net()}.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match=r"save model\.state_dict"):
            learner(weights=str(tmp_path / name))
    with pytest.raises(TypeError, match="weights=OrderedDict"):
        learner(weights=net().state_dict())


def test_weights_in_torchs_older_format(tmp_path: Path) -> None:
    torch.save(net(seed=4).state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    model = learner(weights=str(tmp_path / "old.pth"))
    assert apart(weights(model.model), weights(net(seed=4))) == 0


def test_frozen_blocks_stay_in_eval_mode_whatever_the_network_is_set_to() -> None:
    class Modes(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            pl_module.model.eval()
            pl_module.model(data(1)[0][0])
            pl_module.model.train()

    plain, disturbed = learner(frozen=2), learner(frozen=2)
    fit(plain)
    fit(disturbed, callbacks=[Modes()])
    assert apart(weights(plain.model), weights(disturbed.model)) == 0


def test_a_changed_network_is_given_again_with_its_checkpoint(tmp_path: Path) -> None:
    changed = ConvNet(CLASSES, 3, [4, 6])
    changed[0][2] = nn.GELU()
    model = ScalableForwardForward(changed, CLASSES, SHAPE)
    fit(model, steps=1, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    with pytest.raises(ValueError, match="was changed after it was built"):
        ScalableForwardForward.load_from_checkpoint(tmp_path / "last.ckpt")
    other = ScalableForwardForward(ConvNet(CLASSES, 3, [4, 6]), CLASSES, SHAPE)
    other.reset_heads(7)
    batches = [(x, y) for x, y in data(2)]
    keep = ModelCheckpoint(tmp_path, filename="seven")
    quiet(enable_checkpointing=True, callbacks=[keep]).fit(other, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    again = ScalableForwardForward.load_from_checkpoint(tmp_path / "seven.ckpt")
    assert apart(weights(again), weights(other)) == 0


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.net."])
def test_weights_are_loaded_without_the_prefix_of_a_wrapper(prefix: str, tmp_path: Path) -> None:
    source = net(seed=3)
    torch.save({prefix + key: value for key, value in source.state_dict().items()}, tmp_path / "net.pt")
    loaded = learner(net(seed=4), weights=str(tmp_path / "net.pt"))
    assert apart(weights(loaded.model), weights(source)) == 0


@pytest.mark.parametrize("given", [None, "net.pt"])
def test_a_compiled_network_is_refused_by_name(given: str | None) -> None:
    torch.save(net().state_dict(), "net.pt")
    with pytest.raises(ValueError, match=r"model is compiled .* give the original module, model\._orig_mod"):
        ScalableForwardForward(torch.compile(net()), CLASSES, SHAPE, weights=given)
    whole = net()
    whole.fc = torch.compile(whole.fc)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"give the original module, model\.fc\._orig_mod"):
        learner(whole, weights=given)


def test_a_network_that_squeezes_the_batch_away_is_refused() -> None:
    class Squeezing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(SHAPE[0], 5, 3), nn.Linear(5, CLASSES)

        def forward(self, x: torch.Tensor) -> Any:
            return self.fc(self.conv(x).relu().mean((-2, -1), keepdim=True).squeeze())

    with pytest.raises(ValueError, match=r"block0\d gives a tensor of shape .* use x\.flatten\(1\) or x\.squeeze"):
        ScalableForwardForward(Squeezing(), CLASSES, SHAPE)
