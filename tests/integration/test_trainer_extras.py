"""Other uses of a LightningModule: average, compile, export, copy, predict, validate between two steps."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import lightning.pytorch.callbacks as lightning_callbacks
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.tuner import Tuner
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR
from typing_extensions import override

from lightning_ff import (
    AppendOneHot,
    CrossEntropy,
    LinearGoodness,
    LinearReadout,
    LocalBlock,
    LocalLearner,
    LocalNetwork,
    PixelOverlay,
    SoftmaxReadout,
    SumReadout,
    Unlabelled,
)

needs_averaging = pytest.mark.skipif(
    not hasattr(lightning_callbacks, "EMAWeightAveraging"), reason="EMAWeightAveraging came with Lightning 2.6"
)


class WeightLog(Callback):
    """Keeps the weights after every optimizer step, and those that validation sees."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, Tensor]] = {}
        self.validated: list[dict[str, Tensor]] = []

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps[trainer.global_step] = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    @override
    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.validated.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})


@needs_averaging
@pytest.mark.parametrize("accumulate", [1, 2])
def test_averaged_weights_are_the_average_of_the_recorded_ones(
    learner: Any, digits: Any, trainer: Any, accumulate: int
) -> None:
    model, log = learner(accumulate_grad_batches=accumulate), WeightLog()
    average = lightning_callbacks.EMAWeightAveraging(decay=0.75)
    runner = trainer(max_epochs=2, callbacks=[average, log])
    runner.fit(model, digits())
    expected: dict[str, Tensor] = {}
    epochs = []
    assert list(log.steps) == list(range(0 if accumulate > 1 else 1, runner.global_step + 1))
    for step, weights in log.steps.items():
        if step == 1:
            expected = weights
        elif step > 1:
            expected = {name: 0.75 * expected[name] + 0.25 * weight for name, weight in weights.items()}
        if step in (runner.global_step // 2, runner.global_step):
            epochs.append(expected)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name])
        assert not torch.equal(parameter, log.steps[runner.global_step][name])
        for seen, wanted in zip(log.validated, epochs, strict=True):
            torch.testing.assert_close(seen[name], wanted[name])


@needs_averaging
def test_averaging_does_not_change_what_is_learned(learner: Any, digits: Any, trainer: Any) -> None:
    logs = {}
    for averages in (True, False):
        logs[averages] = WeightLog()
        callbacks = [lightning_callbacks.EMAWeightAveraging(decay=0.75)] * averages
        torch.manual_seed(5)
        trainer(max_epochs=2, callbacks=[*callbacks, logs[averages]]).fit(learner(dropout=0.2), digits())
    for step in range(1, 11):
        for name, weight in logs[False].steps[step].items():
            assert torch.equal(logs[True].steps[step][name], weight)


def test_stochastic_weight_averaging_is_refused(learner: Any, digits: Any, trainer: Any) -> None:
    average = lightning_callbacks.StochasticWeightAveraging(swa_lrs=1e-2)
    with pytest.raises(ValueError, match=r"StochasticWeightAveraging .*: remove it, or use .*EMAWeightAveraging"):
        trainer(max_epochs=3, callbacks=[average]).fit(learner(), digits())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_blocks_learn_the_same_weights(
    learner: Any, digits: Any, trainer: Any, same: Any, backend: str
) -> None:
    plain, compiled = (learner() for _ in range(2))
    for block in compiled.blocks:
        block.compile(backend=backend)
    for model in (plain, compiled):
        trainer(max_epochs=2, log_every_n_steps=3).fit(model, digits(batch_size=32))  # the last batch has 16 images
    assert same(compiled, plain)
    assert compiled.state_dict().keys() == plain.state_dict().keys()


READERS = {
    "sum": {},
    "softmax": {"readout": SoftmaxReadout(skip_first=True), "labels": AppendOneHot()},
    "linear": {"readout": LinearReadout()},
    "unsupervised": {"readout": LinearReadout(), "labels": Unlabelled()},
}


@pytest.mark.parametrize("reader", READERS)
def test_the_exported_network_answers_alike(learner: Any, digits: Any, trainer: Any, reader: str) -> None:
    model = learner(dropout=0.2, **copy.deepcopy(READERS[reader]))
    trainer(max_epochs=1).fit(model, digits())
    network, images = model.network.eval(), torch.rand(7, 1, 8, 8)
    program = torch.export.export(network, (images,))
    assert torch.equal(program.module()(images), network(images))
    others = torch.rand(7, 1, 8, 8)
    assert torch.equal(program.module()(others), network(others))
    assert torch.equal(model(images), network(images))

    batch = torch.export.Dim("batch", max=network.scan_rows)  # larger ones would be scanned in several parts
    program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    few = torch.rand(3, 1, 8, 8)
    assert torch.equal(program.module()(few), network(few))


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("fitted", [False, True])
def test_a_copy_is_the_same_and_independent(
    learner: Any, digits: Any, trainer: Any, same: Any, weights: Any, clone: Any, fitted: bool
) -> None:
    model = learner(scheduler=partial(ExponentialLR, gamma=0.5))
    if fitted:
        trainer(max_epochs=1).fit(model, digits())
    before, twin = weights(model), clone(model)
    assert same(twin, model)
    if fitted:
        assert str(twin.local_optimizers) == str(model.local_optimizers)
        ours = {id(p) for group in twin.local_optimizers.param_groups for p in group["params"]}
        assert ours == {id(p) for p in twin.parameters()}
        assert all(inner.state is twin.local_optimizers.state for inner in twin.local_optimizers.by_block.values())
    trainer(max_epochs=1).fit(twin, digits())
    assert same(model, before)
    trainer(max_epochs=1).fit(model, digits())
    assert same(twin, model)


@pytest.mark.parametrize(
    ("reader", "shape"), [("sum", (2, 10)), ("softmax", (2, 10)), ("linear", (2,)), ("unsupervised", (2,))]
)
def test_predictions_of_both_kinds_of_readout(
    learner: Any, digits: Any, trainer: Any, reader: str, shape: tuple[int, ...]
) -> None:
    model, data = learner(**copy.deepcopy(READERS[reader])), digits()
    parts = trainer().predict(model, data)
    assert [len(part["label"]) for part in parts] == [64] * 5 + [40]
    images = torch.cat([batch.image for batch in data.test_dataloader()])
    scores = model(images)
    joined = {name: torch.cat([part[name] for part in parts]) for name in ("index", "label", "scores", "goodness")}
    assert joined["index"].tolist() == list(range(360))
    torch.testing.assert_close(joined["scores"], scores.detach())
    assert torch.equal(joined["label"], joined["scores"].argmax(1))
    assert joined["goodness"].shape == (360, *shape)
    if reader == "sum":
        torch.testing.assert_close(joined["goodness"].sum(1), joined["scores"])
    else:
        view = model.labels.neutral(images) if len(shape) == 1 else model.labels(images, torch.full((360,), 3))
        expected = torch.stack(model.network.goodness(view), 1)
        torch.testing.assert_close(joined["goodness"] if len(shape) == 1 else joined["goodness"][..., 3], expected)


def test_predictions_in_class_mode(digits: Any, trainer: Any) -> None:
    layers = [nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU()), nn.Sequential(nn.Linear(8, 4), nn.ReLU())]
    blocks = [LocalBlock(layer, LinearGoodness(), CrossEntropy()) for layer in layers]
    model = LocalLearner(LocalNetwork(blocks, (1, 8, 8), 10, SumReadout()))
    part = trainer(limit_predict_batches=1).predict(model, digits())[0]
    assert part["goodness"].shape == (64, 2, 10)
    torch.testing.assert_close(part["goodness"].sum(1), part["scores"])


@pytest.mark.parametrize(("step", "backward"), [("batch", "per_block"), ("batch", "summed"), ("block", "per_block")])
def test_validation_between_two_steps_keeps_the_gradients(
    learner: Any, digits: Any, trainer: Any, tally: Any, same: Any, step: str, backward: str
) -> None:
    models = [learner(accumulate_grad_batches=4, step=step, backward=backward, dropout=0.2) for _ in range(2)]
    for model, often in zip(models, (True, False), strict=True):
        torch.manual_seed(7)
        runner = trainer(max_epochs=2, callbacks=[tally] * often, **({"val_check_interval": 2} if often else {}))
        runner.fit(model, digits())
        assert runner.global_step == 4
    assert len(tally.validations) == 4
    assert same(*models)


@pytest.mark.skipif(
    not hasattr(lightning_callbacks, "EMAWeightAveraging"), reason="before 2.6 Lightning's finder goes one size too far"
)
def test_the_batch_size_finder_leaves_the_learner_as_it_was(
    learner: Any, digits: Any, trainer: Any, same: Any, weights: Any
) -> None:
    model, data, runner = learner(labels=PixelOverlay(1.0)), digits(), trainer(max_epochs=1)
    before = weights(model)
    found = Tuner(runner).scale_batch_size(model, datamodule=data, init_val=4, max_trials=3, steps_per_trial=2)
    assert found == data.batch_size == 16
    assert same(model, before)
    runner.fit(model, datamodule=data)
    assert runner.global_step == 5


def test_plain_values_modules_and_properties_are_set_as_on_any_module(learner: Any) -> None:
    model = learner()
    model.note = 1
    model.note = "plain"
    assert model.__dict__["note"] == "plain"
    model.note = part = nn.Linear(1, 1)
    assert "note" not in model.__dict__
    assert dict(model.named_children())["note"] is part
    model.note = None
    assert dict(model._modules)["note"] is None
    assert "note.weight" not in model.state_dict()
    model.lr = 0.25  # a property
    assert model.new_lr == 0.25
    assert "lr" not in model.__dict__
    model.negatives = None
    assert model.negatives is model.sampling.own is None
