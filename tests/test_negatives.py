"""Negative samplers: the labels that they write, their frequencies, and what they depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_ff.labels import AppendOneHot
from lightning_ff.methods import ForwardForward
from lightning_ff.negatives import (
    AllWrongLabels,
    FixedPool,
    HardLabel,
    Mixture,
    NegativeContext,
    NegativeSampler,
    WrongLabel,
    hard_labels,
    wrong_labels,
)
from lightning_ff.readouts import LinearReadout


class Learner(ForwardForward):
    """A learner that is a context too, whose epoch and batch are set by hand."""

    epoch = batch = 0

    def scores(self, x: Tensor) -> Tensor:
        return NegativeContext(self.network).scores(x)


def learner(classes: int = 5, epoch: int = 0, **arguments: Any) -> Learner:
    torch.manual_seed(0)
    made = Learner(classes, (6,), widths=[8, 8], labels=AppendOneHot(on_value=2.0), dropout=0.5, **arguments)
    made.epoch = epoch
    return made


def images(n: int) -> Tensor:
    return torch.rand(n, 6, generator=torch.Generator().manual_seed(0))


def drawn(sampler: NegativeSampler, y: Tensor, index: Tensor, of: Learner) -> Tensor:
    """The classes a sampler wrote, after a check that the images came through."""
    x = images(len(y))
    negatives = sampler(x, y, index, of)
    assert torch.equal(negatives[:, :6], x.repeat(len(negatives) // len(x), 1))
    return negatives[:, 6:].argmax(1)


def chi_square(counts: Tensor, expected: Tensor) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


# Quantiles 1 - 1e-5 of chi-square by degrees of freedom.
FAR = {1: 19.5, 2: 23.0, 3: 25.9, 4: 28.5, 5: 30.9, 6: 33.1, 7: 35.3, 8: 37.3, 63: 122.7}


@pytest.mark.parametrize("classes", range(2, 11))
def test_a_wrong_label_is_never_the_true_one_and_uniform_over_the_others(classes: int) -> None:
    n = 20_000
    y = torch.arange(n) % classes
    for seed, epoch in ((0, 0), (0, 1), (7, 30)):
        wrong = wrong_labels(y, classes, torch.arange(n), seed, epoch)
        assert (int(wrong.min()), int(wrong.max())) == (0, classes - 1)
        distance = (wrong - y) % classes
        counts = torch.bincount(distance, minlength=classes).double()
        assert counts[0] == 0
        if classes > 2:
            assert chi_square(counts[1:], torch.full((classes - 1,), n / (classes - 1))) < FAR[classes - 2]


def test_draws_of_successive_epochs_are_independent() -> None:
    n, others = 64_000, 8
    y = torch.zeros(n, dtype=torch.int64)
    one, two = (wrong_labels(y, others + 1, torch.arange(n), 3, epoch) - 1 for epoch in (4, 5))
    counts = torch.bincount(one * others + two, minlength=others**2).double()
    assert chi_square(counts, torch.full((others**2,), n / others**2)) < FAR[63]


@pytest.mark.parametrize("sampler", [WrongLabel(seed=3), FixedPool(seed=3, draw=2)], ids=str)
def test_the_label_of_a_sample_does_not_depend_on_its_batch(sampler: NegativeSampler) -> None:
    of = learner(epoch=2)
    y, index = torch.arange(40) % 5, torch.arange(40) + 1000
    whole = drawn(sampler, y, index, of)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn(sampler, y[order], index[order], of), whole[order])
    of.batch = 17
    parts = [drawn(sampler, y[rows], index[rows], of) for rows in torch.arange(40).split(7)]
    assert torch.equal(torch.cat(parts), whole)
    torch.rand(5)
    assert torch.equal(drawn(sampler, y, index, of), whole)


def test_another_seed_or_epoch_is_another_draw() -> None:
    y, index = torch.zeros(200, dtype=torch.int64), torch.arange(200)
    draws = {
        tuple(drawn(WrongLabel(seed), y, index, learner(epoch=epoch)).tolist())
        for seed, epoch in ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0))
    }
    assert len(draws) == 5


def test_wrong_label_writes_the_labels_of_the_function() -> None:
    y, index = torch.arange(30) % 5, torch.arange(30)
    assert torch.equal(drawn(WrongLabel(4), y, index, learner(epoch=6)), wrong_labels(y, 5, index, 4, 6))


def test_a_fixed_pool_changes_with_its_draw_alone() -> None:
    sampler, of = FixedPool(seed=1), learner()
    y, index = torch.zeros(200, dtype=torch.int64), torch.arange(200)
    first = drawn(sampler, y, index, of)
    for of.epoch in (1, 9):
        assert torch.equal(drawn(sampler, y, index, of), first)
    sampler.draw = 1
    second = drawn(sampler, y, index, of)
    assert 0.1 < float((second == first).float().mean()) < 0.4
    sampler.draw = 0
    assert torch.equal(drawn(sampler, y, index, of), first)
    assert sampler.needs_index
    assert not WrongLabel().needs_index


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_all_wrong_labels_are_complete_and_in_groups_of_the_positives(classes: int) -> None:
    y = torch.arange(12) % classes
    wrong = drawn(AllWrongLabels(), y, torch.arange(12), learner(classes)).view(classes - 1, 12)
    for row, label in enumerate(y.tolist()):
        assert sorted([label, *wrong[:, row].tolist()]) == list(range(classes))


@pytest.mark.parametrize("sampler", [WrongLabel(), FixedPool(), HardLabel(), AllWrongLabels()], ids=str)
def test_positives_carry_the_true_label(sampler: NegativeSampler) -> None:
    x, y, of = images(10), torch.arange(10) % 5, learner()
    assert torch.equal(sampler.positives(x, y, of), of.labels(x, y))
    assert sampler.writes_label


@pytest.mark.parametrize("true", range(4))
def test_hard_labels_follow_the_softmax_of_the_wrong_classes(true: int) -> None:
    n, scores = 40_000, torch.tensor([1.0, -0.5, 2.0, 0.3])
    y = torch.full((n,), true)
    for seed in (0, 5):
        counts = torch.bincount(hard_labels(scores.expand(n, 4), y, torch.arange(n), seed, 3), minlength=4).double()
        assert counts[true] == 0
        others = [c for c in range(4) if c != true]
        assert chi_square(counts[others], n * scores[others].double().softmax(0)) < FAR[2]


def test_hard_labels_of_neighbours_are_independent() -> None:
    n, others = 50_000, 3
    scores = torch.tensor([0.0, 1.0, 0.5, 0.2]).expand(n, 4)
    drawn_ones = hard_labels(scores, torch.zeros(n, dtype=torch.int64), torch.arange(n)) - 1
    shares = scores[0, 1:].double().softmax(0)
    expected = (n / 2 * shares.unsqueeze(1) * shares).flatten()
    for step in (1, 2):
        one, two = drawn_ones.view(-1, 2 * step)[:, :step].flatten(), drawn_ones.view(-1, 2 * step)[:, step:].flatten()
        counts = torch.bincount(one * others + two, minlength=others**2).double()
        assert chi_square(counts, expected) < FAR[8]


def test_hard_labels_depend_on_the_sample_and_not_on_its_batch() -> None:
    n = 50
    scores = torch.randn(n, 6, generator=torch.Generator().manual_seed(2))
    y, index = torch.arange(n) % 6, torch.arange(n) * 3
    whole = hard_labels(scores, y, index, 1, 1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    assert torch.equal(hard_labels(scores[order], y[order], index[order], 1, 1), whole[order])
    assert not torch.equal(hard_labels(scores, y, index, 1, 2), whole)
    assert not torch.equal(hard_labels(scores, y, index, 2, 1), whole)
    assert torch.equal(hard_labels(scores + 100, y, index, 1, 1), whole)


@pytest.mark.parametrize("size", [1e-30, 1e4, -1e4, 1e30, -1e30])
def test_hard_labels_of_extreme_scores_are_never_true(size: float) -> None:
    n = 5000
    y = torch.arange(n) % 3
    scores = size * torch.tensor([3.0, 2.0, 1.0]).expand(n, 3)
    wrong = hard_labels(scores.bfloat16(), y, torch.arange(n))
    assert not bool((wrong == y).any())
    if abs(size) > 1:
        best, second = (0, 1) if size > 0 else (2, 1)
        assert torch.equal(wrong, torch.where(y == best, second, best))


def hard_learner(epoch: int = 1) -> Learner:
    """Scores of untrained networks of this size are distinguishable from uniform ones."""
    of = learner(epoch=epoch)
    with torch.no_grad():
        for p in of.network.parameters():
            p.mul_(3)
    return of


def test_hard_label_draws_in_proportion_to_the_networks_scores() -> None:
    n, of = 20_000, hard_learner()
    x = images(1).expand(n, 6)
    y = torch.full((n,), 2)
    with torch.no_grad():
        scores = of.eval().network(x[:1])[0].double()
    negatives = HardLabel(fraction=1.0)(x, y, torch.arange(n), of)
    counts = torch.bincount(negatives[:, 6:].argmax(1), minlength=5).double()
    others = [0, 1, 3, 4]
    probabilities = scores[others].softmax(0)
    assert counts[2] == 0
    assert chi_square(counts[others], n * probabilities) < FAR[3]
    assert chi_square(counts[others], torch.full((4,), n / 4)) > 1000


def test_a_scan_for_hard_labels_leaves_no_trace() -> None:
    of = hard_learner().train()
    of.network.blocks[1].layers.eval()  # type: ignore[union-attr]
    flags = [module.training for module in of.modules()]
    state = torch.get_rng_state()
    x, y, index = images(20), torch.arange(20) % 5, torch.arange(20)
    recording: list[bool] = []
    of.network.register_forward_hook(lambda module, inputs, output: recording.append(output.requires_grad))
    negatives = HardLabel(fraction=1.0)(x, y, index, of)
    assert recording == [False]
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in of.modules()] == flags
    assert not negatives.requires_grad
    assert all(p.grad is None for p in of.parameters())
    of.eval()
    assert torch.equal(HardLabel(fraction=1.0)(x, y, index, of), negatives)  # dropout was off in train mode too


def test_hard_labels_are_drawn_from_a_learned_readout_too() -> None:
    of = learner(epoch=1, readout=LinearReadout())
    y = torch.arange(20) % 5
    wrong = drawn(HardLabel(fraction=1.0), y, torch.arange(20), of)
    with torch.no_grad():
        expected = hard_labels(of.eval()(images(20)), y, torch.arange(20), 0, 1)
    assert torch.equal(wrong, expected)
    assert not bool((wrong == y).any())


def hard_batches(sampler: NegativeSampler, of: Learner, batches: int = 1500) -> Tensor:
    """Which batches differ from plain wrong labels."""
    x, y, index = images(8), torch.arange(8) % 5, torch.arange(8)
    plain = of.labels(x, wrong_labels(y, 5, index, 0, of.epoch))
    found = []
    for of.batch in range(batches):
        found.append(not torch.equal(sampler(x, y, index, of), plain))
    return torch.tensor(found).float()


def within(share: Tensor, expected: float) -> bool:
    return abs(float(share.mean()) - expected) <= 4 * (expected * (1 - expected) / len(share)) ** 0.5


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_the_fraction_of_hard_batches_is_kept(fraction: float) -> None:
    of = hard_learner()
    x, y, index = images(8), torch.arange(8) % 5, torch.arange(8)
    assert not torch.equal(HardLabel(fraction=1.0)(x, y, index, of), WrongLabel()(x, y, index, of))
    assert within(hard_batches(HardLabel(fraction=fraction), of), fraction)


def test_all_batches_can_be_hard() -> None:
    assert float(hard_batches(HardLabel(fraction=1.0), hard_learner(), 100).mean()) == 1.0


def test_hard_labels_begin_with_their_epoch() -> None:
    of = hard_learner(epoch=2)
    sampler = HardLabel(fraction=1.0, start_epoch=3)
    assert float(hard_batches(sampler, of, 20).sum()) == 0
    of.epoch = 3
    assert float(hard_batches(sampler, of, 20).sum()) == 20
    of.epoch = 0
    assert float(hard_batches(HardLabel(fraction=1.0, start_epoch=0), of, 20).sum()) == 20
    assert float(hard_batches(HardLabel(fraction=1.0), of, 20).sum()) == 0


def kinds(sampler: NegativeSampler, of: Learner, batches: int = 3000) -> Tensor:
    """Number of negatives per positive in every batch."""
    x, y, index = images(2), torch.tensor([0, 1]), torch.arange(2)
    counts = []
    for of.batch in range(batches):
        counts.append(len(sampler(x, y, index, of)) // 2)
    return torch.tensor(counts)


@pytest.mark.parametrize(
    ("weights", "share"), [([1.0, 3.0], 0.75), ([0.9, 0.1], 0.1), ([2.0, 0.0], 0.0), ([0, 1], 1.0)]
)
def test_a_mixture_draws_by_weight(weights: list[float], share: float) -> None:
    many = kinds(Mixture([WrongLabel(), AllWrongLabels()], weights), learner()) == 4
    assert within(many.float(), share)


def test_the_draw_of_a_mixture_depends_on_seed_epoch_and_batch() -> None:
    def sequence(seed: int, epoch: int) -> list[int]:
        return kinds(Mixture([WrongLabel(), AllWrongLabels()], [1, 1], seed), learner(epoch=epoch), 64).tolist()

    assert sequence(0, 0) == sequence(0, 0)
    assert len({tuple(sequence(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize("first", [True, False], ids=["hard first", "hard last"])
def test_a_hard_sampler_in_a_mixture_keeps_its_own_fraction(first: bool) -> None:
    """With one draw for both, hard labels would be drawn always or never."""
    samplers: list[NegativeSampler] = [HardLabel(fraction=0.5), WrongLabel()]
    mixture = Mixture(samplers if first else samplers[::-1], [1, 1])
    assert within(hard_batches(mixture, hard_learner()), 0.25)


def test_mixtures_in_a_mixture_draw_on_their_own() -> None:
    inner = Mixture([AllWrongLabels(), WrongLabel()], [1, 1])
    counts = kinds(Mixture([inner, WrongLabel()], [1, 1]), learner())
    assert within((counts == 4).float(), 0.25)


def test_a_mixture_uses_the_positives_of_the_sampler_it_draws() -> None:
    class Marked(WrongLabel):
        def positives(self, x: Tensor, y: Tensor, context: object) -> Tensor:
            return super().positives(x + 50, y, context)  # type: ignore[arg-type]

        def forward(self, x: Tensor, *rest: object) -> Tensor:
            return super().forward(x + 50, *rest)  # type: ignore[arg-type]

    of, mixture = learner(), Mixture([WrongLabel(), Marked()], [1, 1])
    seen = set()
    for of.batch in range(30):
        x, y = images(4), torch.arange(4)
        marks = [bool((part[:, :6] > 10).all()) for part in (mixture.positives(x, y, of), mixture(x, y, y, of))]
        assert marks[0] == marks[1]
        seen.add(marks[0])
    assert seen == {True, False}


def test_a_mixture_needs_what_its_samplers_need() -> None:
    assert not Mixture([WrongLabel(), HardLabel()], [1, 1]).needs_index
    assert Mixture([WrongLabel(), FixedPool()], [1, 1]).needs_index
    assert Mixture([WrongLabel(), Mixture([FixedPool()], [1])], [1, 1]).needs_index
    assert Mixture([WrongLabel()], [1]).writes_label


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HardLabel(fraction=0.0), r"fraction=0.0: must lie in \(0, 1\]"),
        (lambda: HardLabel(fraction=1.5), r"fraction=1.5: must lie in \(0, 1\]"),
        (lambda: HardLabel(start_epoch=-1), "start_epoch=-1: must be 0 or more"),
        (lambda: Mixture([WrongLabel()], [1, 2]), r"weights=\[1, 2\]: give one for each of the 1 samplers"),
        (lambda: Mixture([], []), r"weights=\[\]: give one for each of the 0 samplers"),
        (lambda: Mixture([WrongLabel(), WrongLabel()], [1, -1]), r"weights=\[1, -1\]: must be 0 or more and not all 0"),
        (lambda: Mixture([WrongLabel()], [0.0]), r"weights=\[0.0\]: must be 0 or more and not all 0"),
    ],
)
def test_bad_arguments(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_base_names_what_to_override() -> None:
    class Mine(NegativeSampler):
        pass

    with pytest.raises(TypeError, match=r"Mine must override forward\(x, y, index, context\)"):
        Mine()(images(1), torch.tensor([0]), torch.tensor([0]), learner())


@pytest.mark.parametrize("held_out", [(0,), (3, 1), (4,)])
def test_held_out_classes_are_never_a_wrong_label(held_out: tuple[int, ...]) -> None:
    seen = [c for c in range(5) if c not in held_out]
    y = torch.tensor(seen).repeat(400)
    index = torch.arange(len(y))
    wrong = wrong_labels(y, 5, index, held_out=held_out)
    assert set(wrong.tolist()) == set(seen)
    assert not bool((wrong == y).any())
    for c in seen:  # uniform over the others
        counts = wrong[y == c].bincount(minlength=5)
        others = [k for k in seen if k != c]
        assert counts[others].double().sub(400 / len(others)).abs().max() < 5 * (400 / len(others)) ** 0.5
    assert torch.equal(wrong_labels(y, 5, index), wrong_labels(y, 5, index, held_out=()))
    hard = hard_labels(torch.randn(len(y), 5), y, index, held_out=held_out)
    assert set(hard.tolist()) <= set(seen)
    assert not bool((hard == y).any())
