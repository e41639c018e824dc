"""Local losses against closed forms and the cross-entropies they are identical to."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_ff.labels import AppendOneHot
from lightning_ff.negatives import AllWrongLabels
from lightning_ff.objectives import CrossEntropy, LocalLoss, PairLoss, SymBa, ThresholdLoss, symba_loss, threshold_loss
from lightning_ff.target import Labels, Pairs


def goodness(n: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softplus(z: float) -> float:
    return math.log1p(math.exp(-abs(z))) + max(z, 0.0)


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 2.5])
def test_threshold_loss_is_twice_the_binary_cross_entropy(threshold: float) -> None:
    positive, negative = goodness(8, 1), goodness(8, 2)
    logits = torch.cat((positive, negative)) - threshold
    target = torch.cat((torch.ones(8), torch.zeros(8))).double()
    expected = 2 * F.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(threshold_loss(positive, negative, threshold), expected)
    by_hand = [softplus(threshold - float(g)) for g in positive] + [softplus(float(g) - threshold) for g in negative]
    assert float(expected) == pytest.approx(sum(by_hand) / 8)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_symba_is_the_cross_entropy_of_two_classes(alpha: float) -> None:
    positive, negative = goodness(8, 1), goodness(8, 2)
    logits = alpha * torch.stack((positive, negative), 1)
    expected = F.cross_entropy(logits, torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(symba_loss(positive, negative, alpha), expected)
    by_hand = [softplus(-alpha * float(p - n)) for p, n in zip(positive, negative, strict=True)]
    assert float(expected) == pytest.approx(sum(by_hand) / 8)


def test_symba_pairs_every_group_with_the_positives_in_order() -> None:
    positive, negative = goodness(4, 1), goodness(12, 2)
    pairs = [softplus(-2.0 * float(positive[i] - negative[4 * k + i])) for k in range(3) for i in range(4)]
    assert float(symba_loss(positive, negative, 2.0)) == pytest.approx(sum(pairs) / 12)


def test_symba_pairs_an_image_with_all_its_own_wrong_labels() -> None:
    """Goodness that depends on the image alone: every pair is a draw, so the loss is log 2 for every sample."""
    labels = AppendOneHot(on_value=1.0)
    labels.build(5, (1,))
    learner: Any = SimpleNamespace(labels=labels, num_classes=5, held_out=())
    image, label = 100.0 * torch.arange(6.0).unsqueeze(1), torch.tensor([0, 4, 2, 2, 1, 3])
    sampler = AllWrongLabels()
    rows = torch.cat((sampler.positives(image, label, learner), sampler(image, label, torch.arange(6), learner)))
    assert rows.shape == (30, 6)
    assert float(SymBa(alpha=4.0)(rows[:, 0], Pairs(6))) == pytest.approx(math.log(2))


def test_each_side_is_a_mean_whatever_its_number() -> None:
    """Four copies of every negative change neither the loss nor a gradient."""
    for loss in (ThresholdLoss(1.5), SymBa(2.0)):
        gradients, values = [], []
        for copies in (1, 4):
            positive, negative = goodness(5, 1).requires_grad_(), goodness(5, 2).requires_grad_()
            value = loss(torch.cat((positive, negative.repeat(copies))), Pairs(5))
            value.backward()
            assert positive.grad is not None
            assert negative.grad is not None
            values.append(value.detach())
            gradients.append(torch.cat((positive.grad, negative.grad)))
        torch.testing.assert_close(values[0], values[1])
        torch.testing.assert_close(gradients[0], gradients[1])


def test_threshold_loss_takes_any_numbers() -> None:
    positive, negative = goodness(3, 1), goodness(7, 2)
    expected = sum(softplus(1 - float(g)) for g in positive) / 3 + sum(softplus(float(g) - 1) for g in negative) / 7
    assert float(threshold_loss(positive, negative, 1.0)) == pytest.approx(expected)


@pytest.mark.parametrize("loss", [ThresholdLoss(2.0), SymBa(1.5)], ids=str)
def test_gradients_have_the_right_sign_and_value(loss: PairLoss) -> None:
    g = goodness(10, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda g: loss(g, Pairs(5)), (g,))
    loss(g, Pairs(5)).backward()
    assert g.grad is not None
    assert bool((g.grad[:5] < 0).all())
    assert bool((g.grad[5:] > 0).all())


def test_the_gradient_of_the_threshold_loss_is_the_probability_of_being_wrong() -> None:
    g = goodness(8, 4).requires_grad_()
    ThresholdLoss(0.5)(g, Pairs(4)).backward()
    probability = torch.sigmoid(g.detach() - 0.5)
    torch.testing.assert_close(g.grad, torch.cat((probability[:4] - 1, probability[4:])) / 4)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_goodness_neither_overflows_nor_loses_its_gradient(size: float) -> None:
    for loss in (ThresholdLoss(2.0), SymBa(4.0)):
        right = torch.tensor([size, 0.0], requires_grad=True)
        assert float(loss(right, Pairs(1)).detach()) == pytest.approx(
            softplus(-2.0) if isinstance(loss, ThresholdLoss) else 0.0
        )
        wrong = torch.tensor([0.0, size], requires_grad=True)
        value = loss(wrong, Pairs(1))
        assert float(value.detach()) == pytest.approx(size * (4 if isinstance(loss, SymBa) else 1), rel=1e-3)
        value.backward()
        assert wrong.grad is not None
        assert wrong.grad.isfinite().all()
        assert float(wrong.grad[1]) == pytest.approx(4.0 if isinstance(loss, SymBa) else 1.0)


def test_silent_positives_under_a_high_threshold_do_not_overflow() -> None:
    """The sum of squares of a wide layer has a threshold of thousands, and a silent sample lies that far below it."""
    g = torch.zeros(2, requires_grad=True)
    value = ThresholdLoss(1e4)(g, Pairs(1))
    value.backward()
    assert float(value.detach()) == 1e4
    assert g.grad is not None
    assert g.grad.tolist() == [-1.0, 0.0]


def test_classes_split_the_goodness_at_the_number_of_positives() -> None:
    g = goodness(9)
    assert torch.equal(ThresholdLoss(1.5)(g, Pairs(3)), threshold_loss(g[:3], g[3:], 1.5))
    assert torch.equal(SymBa(2.5)(g, Pairs(3)), symba_loss(g[:3], g[3:], 2.5))
    assert torch.equal(SymBa()(g, Pairs(3)), symba_loss(g[:3], g[3:], 4.0))


def test_an_open_threshold_is_bound_to_the_unit_and_a_given_one_stays() -> None:
    g = goodness(6)
    loss, fixed = ThresholdLoss(), ThresholdLoss(2.0)
    with pytest.raises(RuntimeError, match="give a number to use the loss alone"):
        loss(g, Pairs(3))
    for objective in (loss, fixed):
        objective.bind(7.0)
    assert torch.equal(loss(g, Pairs(3)), threshold_loss(g[:3], g[3:], 7.0))
    assert torch.equal(fixed(g, Pairs(3)), threshold_loss(g[:3], g[3:], 2.0))
    assert (loss.threshold, fixed.threshold) == (None, 2.0)
    zero = ThresholdLoss(0.0)
    zero.bind(7.0)
    assert torch.equal(zero(g, Pairs(3)), threshold_loss(g[:3], g[3:], 0.0))


def test_symba_does_not_depend_on_a_common_shift() -> None:
    g = goodness(8)
    torch.testing.assert_close(SymBa()(g + 50.0, Pairs(4)), SymBa()(g, Pairs(4)))


def test_cross_entropy_of_class_goodness() -> None:
    g, y = goodness(21).view(7, 3).requires_grad_(), torch.tensor([0, 1, 2, 2, 1, 0, 1])
    loss = CrossEntropy()(g, Labels(y))
    values = g.detach()
    torch.testing.assert_close(loss.detach(), (values.logsumexp(1) - values[torch.arange(7), y]).mean())
    loss.backward()
    torch.testing.assert_close(g.grad, (values.softmax(1) - F.one_hot(y, 3)) / 7)
    assert CrossEntropy().mode == "class"
    with pytest.raises(TypeError, match="its target is Labels"):
        CrossEntropy()(values, Pairs(3))


@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_symba_refuses_a_scale_that_does_not_push(alpha: float) -> None:
    with pytest.raises(ValueError, match=f"alpha={alpha}: must be above 0"):
        SymBa(alpha)


def test_symba_refuses_negatives_without_a_partner() -> None:
    with pytest.raises(ValueError, match=r"5 negatives for 3 positives.*or ThresholdLoss"):
        symba_loss(goodness(3), goodness(5))


def test_the_bases_name_what_to_override() -> None:
    class Mine(LocalLoss):
        pass

    class MyPair(PairLoss):
        pass

    assert (Mine.mode, MyPair.mode) == ("class", "pair")
    with pytest.raises(TypeError, match=r"Mine must override forward\(goodness, target\)"):
        Mine()(goodness(2), Pairs(1))
    with pytest.raises(TypeError, match=r"MyPair must override pair\(positive, negative\)"):
        MyPair()(goodness(2), Pairs(1))
