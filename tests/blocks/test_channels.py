"""Channel axis of a block, and its use in goodness and normalisation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from lightning_ff import AuxiliaryGoodness, LocalBlock, MeanReadout, Normalize, ScalableForwardForward
from lightning_ff.blocks.channels import Layout, channel_axis
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import CrossEntropy


class Permuted(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.axes)


def network(layers: nn.Module, input_shape: tuple[int, ...], kind: str = "none", kernel_size: int = 1) -> LocalNetwork:
    block = LocalBlock(layers, AuxiliaryGoodness(kernel_size), CrossEntropy(), Normalize(kind))  # type: ignore[arg-type]
    return LocalNetwork([block], input_shape, 4, MeanReadout()).eval()


LAST = nn.Sequential(nn.Conv2d(3, 8, 3), Permuted(0, 2, 3, 1))
BACK = nn.Sequential(Permuted(0, 2, 3, 1), nn.Linear(3, 8), Permuted(0, 3, 1, 2), nn.AdaptiveAvgPool2d((1, 2)))


@pytest.mark.parametrize(
    ("layers", "axis"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2)), 1),
        (LAST, -1),
        (nn.Sequential(nn.Conv2d(3, 8, 3), Permuted(0, 2, 3, 1), nn.LayerNorm(8)), -1),
        (BACK, 1),
        (nn.Sequential(Permuted(0, 2, 3, 1), nn.Linear(3, 9), Permuted(0, 3, 1, 2)), 1),  # as many rows as channels
        (nn.Sequential(nn.Conv2d(3, 9, 1), Permuted(0, 3, 2, 1)), 1),  # an ambiguous layout: that of the layer
        (nn.Sequential(nn.ReLU()), 1),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2)), 1),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2), Permuted(0, 2, 1)), -1),
        (nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 8, 3), nn.AvgPool1d(2)), 1),
        (nn.Sequential(nn.Flatten(2), Permuted(0, 2, 1), nn.Linear(3, 8)), -1),
    ],
)
def test_the_axis_of_the_channels(layers: nn.Module, axis: int) -> None:
    net = network(layers, (3, 9, 9))
    h = net.features(torch.rand(2, 3, 9, 9))[0]
    assert net.stack[0].goodness.weight.shape[1] == h.shape[axis]  # type: ignore[union-attr,operator]


def test_an_excited_map_and_a_joined_one_keep_the_channels_of_convolutions() -> None:
    assert channel_axis(torch.Size((2, 8, 5, 5)), [Layout(torch.Size((2, 8)), 8, -1)]) == 1
    assert channel_axis(torch.Size((2, 96, 32, 32)), [Layout(torch.Size((2, 32, 32, 32)), 32, 1)]) == 1
    assert channel_axis(torch.Size((2, 7)), [Layout(torch.Size((2, 8)), 8, -1)]) == -1


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_goodness_and_normalisation_of_channels_that_come_last(kernel_size: int) -> None:
    net, x = network(LAST, (3, 9, 9), "channel", kernel_size), torch.rand(5, 3, 9, 9)
    weight, offset = net.stack[0].goodness.weight, net.stack[0].goodness.offset  # type: ignore[union-attr]
    h = LAST[0](x)
    want = F.conv2d(h, weight, offset, padding=kernel_size // 2).square().mean((2, 3))  # type: ignore[arg-type]
    torch.testing.assert_close(net(x), want)
    torch.testing.assert_close(net.normalized_features(x)[0], F.layer_norm(h.permute(0, 2, 3, 1), (8,), eps=1e-8))


@pytest.mark.parametrize("kind", ["layer", "l2", "rms"])
def test_normalisation_over_all_features_does_not_depend_on_the_layout(kind: str) -> None:
    x = torch.rand(5, 3, 9, 9)
    a, b = network(LAST, (3, 9, 9), kind), network(LAST[0], (3, 9, 9), kind)
    torch.testing.assert_close(a.normalized_features(x)[0].permute(0, 3, 1, 2), b.normalized_features(x)[0])


@pytest.mark.parametrize(
    ("model", "cuts", "channels"),
    [
        ("swin_t", "stages", {0: 96, 1: 192, 2: 384, 3: 768}),
        ("convnext_tiny", "layers", {0: 96, 1: 96, 2: 384, 3: 96}),
        ("densenet121", "layers", {1: 128}),
        ("vit_b_16", "blocks", {0: 768, 1: 768}),
    ],
)
def test_torchvision_models_get_one_weight_per_channel(model: str, cuts: str, channels: dict[int, int]) -> None:
    size = {"image_size": 64} if model == "vit_b_16" else {}
    net = ScalableForwardForward(models.get_model(model, num_classes=3, **size), 3, (3, 64, 64), cuts=cuts).network
    for k, wanted in channels.items():
        assert net.stack[k].goodness.weight.shape[1] == wanted, (k, net.shapes[k])  # type: ignore[union-attr]
