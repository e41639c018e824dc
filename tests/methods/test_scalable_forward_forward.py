"""Scalable Forward-Forward against a loop in plain torch, on a small residual network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_ff import (
    AuxiliaryGoodness,
    ConvNet,
    CrossEntropy,
    IntervalReadout,
    LastReadout,
    MeanReadout,
    ScalableForwardForward,
    Schedule,
)
from lightning_ff.callbacks.summary import block_table
from tests.methods.class_runs import CLASSES, SHAPE, STEPS, Net, apart, data, fit, net, quiet, weights

ADAM = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1)
SGD = partial(torch.optim.SGD, lr=1e-2, momentum=0.9)


def learner(model: Any = None, **arguments: Any) -> ScalableForwardForward:
    return ScalableForwardForward(model or net(), CLASSES, SHAPE, **{"optimizer": SGD, **arguments})


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

    def learns(self, segment: Any) -> bool:
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


def test_frozen_blocks_stay_and_have_no_say() -> None:
    model = learner(frozen=2)
    start = weights(model.model)
    fit(model)
    now = weights(model.model)
    assert all(torch.equal(now[name], start[name]) for name in now if name.startswith(("stem", "first")))
    assert not torch.equal(now["second.conv1.weight"], start["second.conv1.weight"])
    assert model.network.scored == ["block02", "block03"]
    assert list(model.facade.inner) == ["block02", "block03"]
    readout = model.network.readout
    assert isinstance(readout, MeanReadout)
    assert readout.blocks == [0]  # of the two that answer, the one that is no classifier


def test_frozen_blocks_stay_under_deep_supervision_too() -> None:
    model = learner(frozen=2, segments="sum_of_losses")
    start = weights(model.model)
    fit(model)
    now = weights(model.model)
    assert all(torch.equal(now[name], start[name]) for name in now if name.startswith(("stem", "first")))
    assert not torch.equal(now["second.conv1.weight"], start["second.conv1.weight"])


def test_learning_rates_fall_with_depth() -> None:
    model = learner(lr_decay=0.5, block_optimizers={"block01": partial(torch.optim.SGD, lr=1.0)})
    fit(model, steps=1)
    rates = [group["lr"] for group in model.facade.param_groups]
    assert rates == pytest.approx([1e-2, 0.5, 1e-2 / 4, 1e-2 / 8])


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
        ({"num_classes": 6}, ValueError, r"goodness=OutputGoodness.* of block03 .*class mode needs \(2, 6\)"),
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


def test_the_summary_names_what_was_cut() -> None:
    table = block_table(learner()).splitlines()
    assert [line.split()[1] for line in table[1:5]] == ["stem", "first", "second", "fc"]


def test_a_network_in_eval_mode_is_trained() -> None:
    model = learner(net().eval())
    fit(model)
    assert int(model.model.state_dict()["stem.1.num_batches_tracked"]) == STEPS


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


def test_convolutions_are_not_left_out_with_the_classifier() -> None:
    with pytest.raises(ValueError, match="head='none' would leave out the last block"):
        learner(cuts=["first"], head="none")
    assert len(learner(cuts=["first", "second"], head="none").blocks) == 2


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
    with pytest.raises(ValueError, match="was changed after it was made"):
        ScalableForwardForward.load_from_checkpoint(tmp_path / "last.ckpt")
    other = ScalableForwardForward(ConvNet(CLASSES, 3, [4, 6]), CLASSES, SHAPE)
    other.reset_heads(7)
    batches = [(x, y) for x, y in data(2)]
    keep = ModelCheckpoint(tmp_path, filename="seven")
    quiet(enable_checkpointing=True, callbacks=[keep]).fit(other, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    again = ScalableForwardForward.load_from_checkpoint(tmp_path / "seven.ckpt")
    assert apart(weights(again), weights(other)) == 0


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
