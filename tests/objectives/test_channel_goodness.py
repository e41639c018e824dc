"""Channel-group goodness, cosine goodness, the competition of classes and weighted losses, against formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_ff import (
    ChannelGoodness,
    CosineGoodness,
    CrossEntropy,
    GroupNormalize,
    Labels,
    LinearGoodness,
    LocalBlock,
    OwnAgainstOthers,
    Pairs,
    SymBa,
    ThresholdLoss,
    WeightedLosses,
)
from lightning_ff.objectives import threshold_loss

G = torch.Generator().manual_seed(0)
MAPS = torch.randn(6, 12, 5, 4, dtype=torch.float64, generator=G)
GOODNESS = torch.rand(6, 4, dtype=torch.float64, generator=G) * 4
LABEL = torch.tensor([0, 3, 1, 1, 2, 0])


def built(goodness: Any, shape: tuple[int, ...], classes: int = 4) -> Any:
    goodness.build(torch.Size(shape), classes)
    return goodness.double()


@pytest.mark.parametrize("h", [MAPS, MAPS[:, :, 0, 0]], ids=["maps", "features"])
@pytest.mark.parametrize("square", [True, False])
def test_channels_are_divided_in_order(h: torch.Tensor, square: bool) -> None:
    goodness = built(ChannelGoodness(square), h.shape[1:])
    expected = torch.stack([(part.square() if square else part).flatten(1).mean(1) for part in h.split(3, 1)], 1)
    torch.testing.assert_close(goodness(h), expected)


def test_a_grouped_layer_sees_its_own_class_alone() -> None:
    """The gradient of class c's goodness is exactly zero outside input group c."""
    torch.manual_seed(0)
    layer, x = nn.Conv2d(12, 8, 3, padding=1, groups=4).double(), MAPS.clone().requires_grad_()
    goodness = built(ChannelGoodness(), (8, 5, 4))
    (gradient,) = torch.autograd.grad(goodness(layer(x).relu())[:, 2].sum(), x)
    assert gradient[:, 6:9].abs().sum() > 0
    gradient[:, 6:9] = 0
    assert gradient.abs().max() == 0.0


def test_group_normalisation_removes_the_linear_goodness_exactly() -> None:
    normal = GroupNormalize(4)(MAPS)
    assert built(ChannelGoodness(square=False), (12, 5, 4))(normal).abs().max() < 1e-15
    squares = built(ChannelGoodness(), (12, 5, 4))(normal)
    assert (squares - 1).abs().max() < 1e-3  # constant too
    expected = [(part - part.mean((1, 2, 3), keepdim=True)) for part in MAPS.split(3, 1)]
    deviation = [part.square().mean((1, 2, 3), keepdim=True).add(1e-5).sqrt() for part in expected]
    torch.testing.assert_close(normal, torch.cat([a / b for a, b in zip(expected, deviation, strict=True)], 1))


@pytest.mark.parametrize("learned", [True, False])
def test_cosine_to_the_prototypes(learned: bool) -> None:
    goodness = built(CosineGoodness(scale=5.0, learned=learned), (12, 5, 4))
    h = MAPS.flatten(1)
    expected = torch.stack([5 * torch.cosine_similarity(h, w[None]) for w in goodness.prototypes], 1)
    torch.testing.assert_close(goodness(MAPS), expected)
    torch.testing.assert_close(goodness(3 * MAPS), expected)
    assert goodness.prototypes.requires_grad == learned


def test_pooled_linear_goodness_has_at_most_so_many_features() -> None:
    goodness = built(LinearGoodness(bias=False, max_features=60), (12, 5, 4))
    assert goodness.projection.weight.shape == (4, 12 * 2 * 2)
    torch.testing.assert_close(goodness(MAPS), F.adaptive_avg_pool2d(MAPS, 2).flatten(1) @ goodness.projection.weight.T)
    assert built(LinearGoodness(max_features=1), (12, 5, 4)).projection.weight.shape == (4, 12)
    assert built(LinearGoodness(max_features=240), (12, 5, 4)).projection.weight.shape == (4, 240)


def test_own_against_others_is_half_of_the_threshold_loss() -> None:
    own = GOODNESS[torch.arange(6), LABEL]
    others = torch.stack([row[torch.arange(4) != c].mean() for row, c in zip(GOODNESS, LABEL, strict=True)])
    loss = OwnAgainstOthers(1.5)(GOODNESS, Labels(LABEL))
    torch.testing.assert_close(loss, threshold_loss(own, others, 1.5) / 2)
    logits, wanted = torch.cat((own, others)) - 1.5, torch.tensor([1.0] * 6 + [0.0] * 6, dtype=torch.float64)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, wanted))


def test_the_competitive_loss_of_the_released_code_is_the_cross_entropy() -> None:
    """Its own form adds 1e-9 to the quotient."""
    own = GOODNESS.exp()[torch.arange(6), LABEL]
    released = -(own / GOODNESS.exp().sum(1) + 1e-9).log().mean()
    assert abs(float(CrossEntropy()(GOODNESS, Labels(LABEL)) - released)) < 5e-8


def test_weighted_losses_are_summed() -> None:
    parts = [CrossEntropy(), OwnAgainstOthers(2.0)]
    expected = 0.28 * parts[0](GOODNESS, Labels(LABEL)) + 0.72 * parts[1](GOODNESS, Labels(LABEL))
    torch.testing.assert_close(WeightedLosses(parts, [0.28, 0.72])(GOODNESS, Labels(LABEL)), expected)
    pairs = WeightedLosses([SymBa(), ThresholdLoss()], [1.0, 2.0])
    pairs.bind(3.0)
    goodness = GOODNESS[:, 0]
    expected = SymBa()(goodness, Pairs(3)) + 2 * ThresholdLoss(3.0)(goodness, Pairs(3))
    torch.testing.assert_close(pairs(goodness, Pairs(3)), expected)


def test_wrong_labels_and_modes() -> None:
    with pytest.raises(TypeError, match=r"OwnAgainstOthers is a class-mode loss"):
        OwnAgainstOthers()(GOODNESS, Pairs(3))
    with pytest.raises(ValueError, match="losses of modes"):
        WeightedLosses([CrossEntropy(), SymBa()], [1.0, 1.0])
    with pytest.raises(ValueError, match="as many of both"):
        WeightedLosses([CrossEntropy()], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"a multiple of 5 channels, one group per class, and the block has 12.*to 15"):
        built(ChannelGoodness(), (12, 5, 4), classes=5)
    with pytest.raises(ValueError, match="tokens"):
        built(ChannelGoodness(), (12, 5), classes=4)


def test_coarse_classes_are_the_cross_entropy_of_expanded_goodness() -> None:
    """Giving a group's goodness to all its members changes the loss by log(members) and not the gradient."""
    torch.manual_seed(0)
    block = LocalBlock(nn.Identity(), ChannelGoodness(), CrossEntropy(), class_map=[0, 0, 1, 1])
    built(block.goodness, (12, 5, 4), classes=2)
    goodness = block.measure(MAPS.clone().requires_grad_())
    loss = block.own_loss(goodness, Labels(LABEL))
    expanded = CrossEntropy()(block.scores(goodness), Labels(LABEL))
    assert loss is not None
    assert (expanded - loss).item() == pytest.approx(math.log(2))
    for a, b in zip(
        *(torch.autograd.grad(each, goodness, retain_graph=True) for each in (loss, expanded)), strict=True
    ):
        torch.testing.assert_close(a, b)
