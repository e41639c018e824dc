"""Samplers with state: a resumed run continues with it bit for bit, and weights load without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch.callbacks as lightning_callbacks
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from typing_extensions import override

from lightning_ff import (
    ForwardForward,
    MineNegatives,
    MixNegatives,
    Mixture,
    NegativeSampler,
    SwitchNegatives,
    WrongLabel,
)


class Memory(NegativeSampler):
    """Blends images with the mean of those it has seen; its wrong labels depend on the number of calls."""

    calls: Tensor
    mean: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.register_buffer("calls", torch.tensor(seed))
        self.register_buffer("mean", torch.zeros(1, 8, 8))
        self.share = nn.Parameter(torch.tensor(0.5))

    @override
    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Any) -> Tensor:
        self.calls += 1
        self.mean.lerp_(x.mean(0), 0.25)
        self.share.mul_(0.9)
        return learner.labels(torch.lerp(x, self.mean, self.share), (y + 1 + (index + self.calls) % 9) % 10)


class Case(NamedTuple):
    """Makes the learner's sampler and the callbacks, new ones for every run, and says where it is resumed."""

    negatives: Callable[[], NegativeSampler]
    callbacks: Callable[[], list[Callback]] = list
    steps: tuple[int, ...] = (3, 5, 8, 10, 13)


# Not from an epoch's last batch before mining began: Lightning leaves out the validation after it, and so the decision.
MINED = (3, 6, 8, 10, 13)


def there_and_back() -> list[Callback]:
    first = Memory(3)
    return [SwitchNegatives({0: first, 1: Memory(4), 2: first})]


CASES = {
    "alone": Case(Memory),
    "in a mixture": Case(lambda: Mixture([Memory(1), WrongLabel(), Memory(2)], [0.4, 0.2, 0.4])),
    "mined": Case(Memory, lambda: [MineNegatives(fraction=0.5, above=0.0)], MINED),
    "switched to": Case(Memory, lambda: [SwitchNegatives({1: Memory(3)})]),
    "switched there and back": Case(WrongLabel, there_and_back),
    "mixed": Case(Memory, lambda: [MixNegatives([Memory(1), Memory(2)], [0.9, 0.1], [0.1, 0.9], epochs=2)]),
    "switched and mined": Case(
        Memory, lambda: [MineNegatives(fraction=0.5, above=0.0), SwitchNegatives({1: Memory(3), 2: Memory(4)})], MINED
    ),
    "mined twice, the second one first": Case(
        Memory,
        lambda: [MineNegatives(0.4, above=10, monitor="val/steps"), MineNegatives(0.6, above=0.0, seed=1)],
        (3, 6, 8, 13),
    ),
}
if hasattr(lightning_callbacks, "EMAWeightAveraging"):
    CASES["averaged"] = Case(Memory, lambda: [lightning_callbacks.EMAWeightAveraging(decay=0.75)])


class Steps(Callback):
    """Logs the number of steps as a metric of validation."""

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("val/steps", float(trainer.global_step))


def state(model: Any, callbacks: list[Callback], runner: Any) -> dict[str, Any]:
    """All that a run leaves behind, copied."""
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "optimizers": [optimizer.state_dict()["state"] for optimizer in runner.optimizers],
        "own": model.sampling.own.state_dict(),
        "installed": model.negatives.state_dict(),
        "sampler": repr(model.negatives),
        "callbacks": [callback.state_dict() for callback in callbacks],
        "step": runner.global_step,
    }


def largest_difference(a: Any, b: Any) -> float:
    """Over two nested collections with the same keys."""
    if isinstance(a, Tensor):
        assert a.shape == b.shape
        return float((a.double() - b.double()).abs().max())
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return max((largest_difference(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list):
        return max((largest_difference(*pair) for pair in zip(a, b, strict=True)), default=0.0)
    assert a == b
    return 0.0


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_goes_on_with_what_samplers_hold(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    model, callbacks = learner(negatives=case.negatives()), case.callbacks()
    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    runner = trainer(max_epochs=3, callbacks=[*callbacks, Steps(), keep], enable_checkpointing=True)
    runner.fit(model, digits())
    expected = state(model, callbacks, runner)
    for step in case.steps:
        again, callbacks = learner(negatives=case.negatives()), case.callbacks()
        with torch.no_grad():
            for parameter in again.parameters():
                parameter.zero_()
        runner = trainer(max_epochs=3, callbacks=[*callbacks, Steps()])
        runner.fit(again, digits(), ckpt_path=tmp_path / f"step={step}.ckpt")
        assert largest_difference(expected, state(again, callbacks, runner)) == 0.0, step


def saved(trainer: Any, model: Any, data: Any, path: Path, *callbacks: Callback) -> Path:
    """A checkpoint of one epoch."""
    runner = trainer(max_epochs=1, callbacks=list(callbacks))
    runner.fit(model, data)
    runner.save_checkpoint(path)
    return path


def test_weights_hold_nothing_of_the_sampler_and_load_whatever_it_is(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path, same: Any
) -> None:
    model, plain = learner(negatives=Memory()), learner()
    path = saved(trainer, model, digits(), tmp_path / "memory.ckpt")
    content = torch.load(path, weights_only=True)
    assert content["state_dict"].keys() == plain.state_dict().keys()
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert {name: value.tolist() for name, value in content["negatives"].items() if name != "mean"} == {
        "calls": 5,
        "share": pytest.approx(0.5 * 0.9**5),
    }
    others: list[NegativeSampler] = [WrongLabel(), Mixture([Memory(7), WrongLabel()], [0.5, 0.5])]
    for other in others:
        before = {name: value.clone() for name, value in other.state_dict().items()}
        loaded = ForwardForward.load_from_checkpoint(path, negatives=other, strict=True)
        assert same(loaded, model)
        assert loaded.negatives is other
        assert largest_difference(before, dict(other.state_dict())) == 0.0
        learner(negatives=other).load_state_dict(model.state_dict(), strict=True)
    again = ForwardForward.load_from_checkpoint(path, negatives=Memory(), strict=True)
    assert largest_difference(dict(model.negatives.state_dict()), dict(again.negatives.state_dict())) == 0.0
    bare = saved(trainer, plain, digits(), tmp_path / "plain.ckpt")
    assert "negatives" not in torch.load(bare, weights_only=True)
    assert same(ForwardForward.load_from_checkpoint(bare, negatives=Memory(), strict=True), plain)


RESUMED: dict[str, tuple[Callable[[], list[Callback]], Callable[[], list[Callback]], str]] = {
    "alone": (list, list, "WrongLabel"),
    "switched to": (
        lambda: [SwitchNegatives({0: Memory()})],
        lambda: [SwitchNegatives({0: WrongLabel(seed=5)})],
        "WrongLabel",
    ),
    "mixed": (lambda: [MixNegatives([Memory()], [1.0])], lambda: [MixNegatives([WrongLabel()], [1.0])], "Mixture"),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_that_cannot_go_on_with_what_the_sampler_held_is_refused(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path, name: str
) -> None:
    before, after, found = RESUMED[name]
    own = Memory() if name == "alone" else WrongLabel()
    path = saved(trainer, learner(negatives=own), digits(), tmp_path / "a.ckpt", *before())
    runner = trainer(max_epochs=2, callbacks=after())
    with pytest.raises(
        ValueError, match=rf"(?s)negatives={found}.*cannot resume.*share.*calls.*mean.*SwitchNegatives"
    ) as error:
        runner.fit(learner(negatives=WrongLabel()), digits(), ckpt_path=path)
    assert type(error.value) is ValueError
    trainer(callbacks=[]).validate(learner(negatives=WrongLabel()), digits(), ckpt_path=path, verbose=False)


def test_a_resumed_run_may_switch_to_more_samplers_than_it_began_with(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path
) -> None:
    path = saved(trainer, learner(), digits(), tmp_path / "a.ckpt", SwitchNegatives({0: Memory()}))
    memory, later = Memory(), Memory(seed=100)
    trainer(max_epochs=3, callbacks=[SwitchNegatives({0: memory, 2: later})]).fit(learner(), digits(), ckpt_path=path)
    assert (int(memory.calls), int(later.calls)) == (10, 105)


def test_a_fit_begins_with_the_learners_own_sampler(learner: Any, digits: Any, trainer: Any) -> None:
    own, other = Memory(), Memory(seed=100)
    model = learner(negatives=own)
    trainer(max_epochs=1, callbacks=[SwitchNegatives({0: other})]).fit(model, digits())
    assert (int(own.calls), int(other.calls)) == (0, 105)
    assert model.negatives is other
    trainer(max_epochs=1).fit(model, digits())
    assert (int(own.calls), int(other.calls)) == (5, 105)
    model.negatives = other  # set by hand it is the learner's own
    trainer(max_epochs=1).fit(model, digits())
    assert (int(own.calls), int(other.calls)) == (5, 110)


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_samplers_have_the_type_of_the_weights(
    learner: Any, digits: Any, trainer: Any, precision: str, dtype: torch.dtype
) -> None:
    own, other = Memory(), Memory()
    runner = trainer(max_epochs=2, precision=precision, callbacks=[SwitchNegatives({1: other})])
    runner.fit(learner(negatives=own), digits())
    for sampler in (own, other):
        assert int(sampler.calls) == 5
        assert (sampler.mean.dtype, sampler.share.dtype, sampler.calls.dtype) == (dtype, dtype, torch.int64)


@pytest.mark.skipif("averaged" not in CASES, reason="this Lightning has no EMAWeightAveraging")
def test_averaged_weights_leave_the_sampler_alone(learner: Any, digits: Any, trainer: Any) -> None:
    models = [learner(negatives=Memory()) for _ in range(2)]
    average = lightning_callbacks.EMAWeightAveraging(decay=0.75)
    for model, callbacks in zip(models, ([average], []), strict=True):
        trainer(max_epochs=2, callbacks=callbacks).fit(model, digits())
    held = [dict(model.negatives.state_dict()) for model in models]
    assert int(held[0]["calls"]) == 10
    assert largest_difference(*held) == 0.0
