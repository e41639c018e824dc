"""Callbacks that change the sampler during a run: what each batch gets, together and in a second run."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from lightning_ff import (
    FixedPool,
    HardLabel,
    MineNegatives,
    MixNegatives,
    Mixture,
    NegativeSampler,
    RefreshNegatives,
    SwitchNegatives,
    WrongLabel,
)
from lightning_ff.hashing import host_uniform
from lightning_ff.negatives import wrong_labels


class Samplers(Callback):
    """Records the learner's sampler after each batch."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.objects: list[NegativeSampler] = []

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.seen.append(" ".join(repr(pl_module.negatives).split()))
        self.objects.append(pl_module.negatives)  # type: ignore[arg-type]


class Offset(NegativeSampler):
    """The class plus `offset`, modulo C."""

    def __init__(self, offset: int) -> None:
        super().__init__()
        self.offset = offset
        self.epochs: list[int] = []

    @override
    def forward(self, x: Tensor, y: Tensor, index: Tensor, context: Any) -> Tensor:
        self.epochs.append(context.epoch)
        return context.labels(x, (y + self.offset) % 10)


def test_switching_installs_each_sampler_from_its_epoch_on(learner: Any, digits: Any, trainer: Any) -> None:
    first, second = Offset(1), Offset(2)
    model = learner(negatives=WrongLabel())
    own = model.negatives
    runner = trainer(max_epochs=5, callbacks=[SwitchNegatives({1: first, 3: second})])
    runner.fit(model, digits())
    assert first.epochs == [1] * 5 + [2] * 5
    assert second.epochs == [3] * 5 + [4] * 5
    assert model.negatives is second
    assert own is not second
    trainer(max_epochs=1, callbacks=[SwitchNegatives({0: first})]).fit(model, digits())
    assert model.negatives is first


def test_mixing_goes_linearly_from_start_to_end(learner: Any, digits: Any, trainer: Any) -> None:
    first, second = Offset(1), Offset(2)
    mix = MixNegatives([first, second], start=[1.0, 0.0], end=[0.0, 1.0], epochs=4)
    weights: list[list[float]] = []

    class Weights(Callback):
        @override
        def on_train_epoch_end(self, *_: Any) -> None:
            weights.append(mix.mixture.weights)

    trainer(max_epochs=6, callbacks=[mix, Weights()]).fit(learner(), digits())
    assert weights == [[1 - share, share] for share in (0, 0.25, 0.5, 0.75, 1, 1)]
    assert sorted([*first.epochs, *second.epochs]) == [epoch for epoch in range(6) for _ in range(5)]
    assert {0} <= set(first.epochs) <= {0, 1, 2, 3}
    assert {4, 5} <= set(second.epochs) <= {1, 2, 3, 4, 5}


def test_refreshing_redraws_the_pool_every_few_epochs(learner: Any, digits: Any, trainer: Any) -> None:
    drawn: dict[int, Tensor] = {}
    pools: list[Tensor] = []

    class Watched(FixedPool):
        @override
        def forward(self, x: Tensor, y: Tensor, index: Tensor, context: Any) -> Tensor:
            negatives = super().forward(x, y, index, context)
            assert torch.equal(negatives, context.labels(x, wrong_labels(y, 10, index, self.seed, self.draw)))
            chosen = negatives.flatten(1)[:, :10].argmax(1)
            drawn.update(dict(zip(index.tolist(), F.one_hot(chosen, 10), strict=True)))
            return negatives

    class Pools(Callback):
        @override
        def on_train_epoch_end(self, *_: Any) -> None:
            pools.append(torch.stack([drawn[index] for index in sorted(drawn)]))

    runner = trainer(max_epochs=6, callbacks=[RefreshNegatives(every_n_epochs=2), Pools()])
    runner.fit(learner(negatives=Watched(seed=4)), digits())
    assert pools[0].shape == (80, 10)
    changes = [not torch.equal(before, after) for before, after in pairwise(pools)]
    assert changes == [False, True, False, True, False]


@pytest.mark.parametrize("above", [0.0, 2.0])
def test_mining_begins_when_the_metric_is_there_and_wraps_once(
    learner: Any, digits: Any, trainer: Any, above: float
) -> None:
    model, mine, seen = learner(negatives=WrongLabel(seed=3)), MineNegatives(fraction=0.75, above=above), Samplers()
    trainer(max_epochs=3, callbacks=[mine, seen]).fit(model, digits())
    assert mine.mining == (above == 0.0)
    assert seen.seen[:5] == ["WrongLabel(seed=3)"] * 5  # the first metric is logged at the end of the first epoch
    assert len(seen.seen) == 15
    if above > 1:
        assert set(seen.seen) == {"WrongLabel(seed=3)"}
        return
    assert isinstance(model.negatives, Mixture)
    assert [type(sampler) for sampler in model.negatives.samplers] == [WrongLabel, HardLabel]
    assert model.negatives.weights == [0.25, 0.75]
    assert all(module.training for module in model.negatives.modules())
    assert len({id(sampler) for sampler in seen.objects[5:]}) == 1


@pytest.mark.parametrize("same", [True, False], ids=["the same learner", "another learner"])
def test_mining_begins_anew_with_every_fit_and_goes_on_in_a_resumed_one(
    learner: Any, digits: Any, trainer: Any, tmp_path: Path, same: bool
) -> None:
    mine, seen, model = MineNegatives(fraction=0.75, above=0.0), Samplers(), learner()

    def mined(runner: Trainer, **arguments: Any) -> list[int]:
        """How many samplers of hard labels each batch of a run had."""
        seen.seen.clear()
        runner.fit(model, digits(), **arguments)
        return [each.count("HardLabel") for each in seen.seen]

    runner = trainer(max_epochs=2, callbacks=[mine, seen])
    assert mined(runner) == [0] * 5 + [1] * 5
    runner.save_checkpoint(tmp_path / "a.ckpt")
    if not same:
        model = learner()
    assert mined(trainer(max_epochs=2, callbacks=[mine, seen])) == [0] * 5 + [1] * 5
    assert mined(trainer(max_epochs=3, callbacks=[mine, seen]), ckpt_path=tmp_path / "a.ckpt") == [1] * 5
    assert mined(trainer(max_epochs=1, callbacks=[mine, seen])) == [0] * 5


BLIND: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no validation batches": ({"limit_val_batches": 0}, {}),
    "no validation data": ({}, {"val_size": 0}),
}


@pytest.mark.parametrize("case", BLIND)
def test_mining_needs_validation(learner: Any, digits: Any, trainer: Any, case: str) -> None:
    flags, data = BLIND[case]
    runner = trainer(max_epochs=2, callbacks=[MineNegatives(monitor="val/loss")], **flags)
    message = r"MineNegatives\(monitor='val/loss'\) waits.*this run has none: give validation data, or take HardLabel"
    with pytest.raises(ValueError, match=message):
        runner.fit(learner(), digits(**data))


def test_mining_without_validation_loader_is_refused_and_one_that_never_looked_says_so(
    learner: Any, digits: Any, trainer: Any
) -> None:
    data = digits()
    data.setup("fit")
    with pytest.raises(ValueError, match="this run has none"):
        trainer(max_epochs=1, callbacks=[MineNegatives()]).fit(learner(), data.train_dataloader())
    seldom = trainer(max_epochs=2, check_val_every_n_epoch=3, callbacks=[MineNegatives(monitor="val/acc/block00")])
    with pytest.warns(UserWarning, match=r"MineNegatives\(monitor='val/acc/block00'\) mined nothing: no validation"):
        seldom.fit(learner(), digits())
    trainer(max_epochs=2, check_val_every_n_epoch=2, callbacks=[MineNegatives(above=2.0)]).fit(learner(), digits())


class Drawn(Callback):
    """Records the seed of the sampler that made the negatives of each batch."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.watched: set[int] = set()

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        for sampler in pl_module.negatives.modules():  # type: ignore[operator, union-attr]
            if isinstance(sampler, (WrongLabel, HardLabel)) and id(sampler) not in self.watched:
                self.watched.add(id(sampler))
                sampler.register_forward_hook(lambda each, *_: self.seeds.append(each.seed))

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("val/steps", float(trainer.global_step))


@pytest.mark.parametrize("first", [0, 1])
def test_two_of_them_mine_side_by_side(learner: Any, digits: Any, trainer: Any, tmp_path: Path, first: int) -> None:
    # one from epoch 1 on, by the accuracy, and one from epoch 3 on, whichever is given first
    early = MineNegatives(fraction=0.5, above=0.0, monitor="val/acc", seed=3)
    late = MineNegatives(fraction=0.4, above=15, monitor="val/steps", seed=4)
    drawn, model = Drawn(), learner(negatives=WrongLabel(seed=2))
    runner = trainer(max_epochs=8, callbacks=[*([early, late], [late, early])[first], drawn])
    runner.fit(model, digits())
    expected = []
    for epoch in range(8):
        for batch in range(5):
            hard = epoch >= 1 and host_uniform(3, epoch, batch, 1) >= 0.5
            harder = epoch >= 3 and host_uniform(4, epoch, batch, 2) >= 0.6
            expected.append(4 if harder else 3 if hard else 2)
    assert drawn.seeds == expected
    assert min(expected.count(seed) for seed in (2, 3, 4)) > 5  # else it shows little: take other seeds
    assert [early.since, late.since] == [5, 15]
    runner.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"]
    assert saved[early.state_key] == {"mining": True, "since": 5}
    assert saved[late.state_key] == {"mining": True, "since": 15}


@pytest.mark.parametrize("mine_first", [True, False])
def test_mining_goes_on_over_samplers_that_are_switched_and_refreshed(
    learner: Any, digits: Any, trainer: Any, mine_first: bool
) -> None:
    pools = [FixedPool(seed=1), FixedPool(seed=2)]
    mine, others = MineNegatives(above=0.0), [SwitchNegatives({0: pools[0], 2: pools[1]}), RefreshNegatives()]
    seen = Samplers()
    order = [mine, *others] if mine_first else [*others, mine]
    model = learner()
    trainer(max_epochs=4, callbacks=[*order, seen]).fit(model, digits())
    bases = [["FixedPool(seed=1)" in each, "FixedPool(seed=2)" in each, "HardLabel" in each] for each in seen.seen]
    assert bases == [[True, False, epoch > 0] for epoch in (0, 1) for _ in range(5)] + [[False, True, True]] * 10
    assert model.negatives.samplers[0] is pools[1]
    assert len({id(sampler) for sampler in seen.objects}) == 3  # the first pool, and one mixture with each
    assert [pool.draw for pool in pools] == [1, 3]
