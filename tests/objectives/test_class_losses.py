"""Class-mode losses against the formulas written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_ff.objectives import CrossEntropy, LogSumExpMargin, log_sum_exp_loss
from lightning_ff.target import Labels, Pairs

GOODNESS = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
LABEL = torch.tensor([0, 3, 1, 1, 2, 0])


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
def test_cross_entropy_is_the_log_sum_exp_form(temperature: float) -> None:
    scaled = GOODNESS / temperature
    own = scaled[torch.arange(6), LABEL]
    expected = -(own - scaled.exp().sum(1).log()).mean()
    torch.testing.assert_close(log_sum_exp_loss(GOODNESS, LABEL, temperature), expected)
    torch.testing.assert_close(CrossEntropy(temperature)(GOODNESS, Labels(LABEL)), expected)
    torch.testing.assert_close(F.cross_entropy(scaled, LABEL), expected)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_margin_leaves_the_true_class_out(temperature: float) -> None:
    total = 0.0
    for row, label in zip(GOODNESS / temperature, LABEL.tolist(), strict=True):
        others = torch.stack([row[c] for c in range(4) if c != label])
        total = total + others.exp().sum().log() - row[label]
    torch.testing.assert_close(LogSumExpMargin(temperature)(GOODNESS, Labels(LABEL)), total / 6)


def test_two_classes_are_a_logistic_loss() -> None:
    goodness, label = GOODNESS[:, :2], LABEL.clamp(max=1)
    sign = 1 - 2 * label
    expected = F.softplus(sign * (goodness[:, 1] - goodness[:, 0])).mean()
    torch.testing.assert_close(CrossEntropy()(goodness, Labels(label)), expected)


@pytest.mark.parametrize("loss", [CrossEntropy, LogSumExpMargin])
def test_bad_input(loss: type[CrossEntropy]) -> None:
    with pytest.raises(ValueError, match="temperature=0: must be above 0"):
        loss(temperature=0)
    with pytest.raises(TypeError, match=f"{loss.__name__} is a class-mode loss"):
        loss()(GOODNESS, Pairs(3))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_label_smoothing_is_that_of_torch(smoothing: float, temperature: float) -> None:
    goodness = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    label = torch.arange(8) % 5
    expected = nn.CrossEntropyLoss(label_smoothing=smoothing)(goodness / temperature, label)
    loss = CrossEntropy(temperature, label_smoothing=smoothing)
    torch.testing.assert_close(loss(goodness, Labels(label)), expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"label_smoothing=1: must lie in \[0, 1\)"):
        CrossEntropy(label_smoothing=1)
