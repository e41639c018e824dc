"""Helpers of the tests of LocalNetwork: small networks in both modes, their images, a pass written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_ff.blocks import LocalBlock, Normalize, mlp
from lightning_ff.labels import AppendOneHot, LabelChannel, LabelEncoding, PixelOverlay
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import CrossEntropy, LinearGoodness, MeanSquare, ThresholdLoss
from lightning_ff.readouts import Readout, SumReadout

CLASSES, SHAPE = 4, (1, 6, 5)


def conv_layers(channels: int) -> list[nn.Module]:
    first = nn.Sequential(nn.Conv2d(channels, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    return [first, nn.Sequential(nn.Conv2d(3, 5, 2), nn.ReLU(), nn.Dropout(0.5))]


def network(
    labels: LabelEncoding | None = None, readout: Readout | None = None, layers: Any = None, **arguments: Any
) -> LocalNetwork:
    """Two conv blocks, or fully connected ones for a flat encoding, in pair mode."""
    torch.manual_seed(0)
    labels = labels or PixelOverlay(on_value=2.0)
    if layers is None:
        flat = isinstance(labels, AppendOneHot)
        layers = mlp(34, [9, 7]) if flat else conv_layers(2 if isinstance(labels, LabelChannel) else 1)
    blocks = [LocalBlock(m, MeanSquare(), ThresholdLoss(), Normalize("rms")) for m in layers]
    arguments = {"input_normalization": Normalize("rms"), **arguments}
    return LocalNetwork(blocks, SHAPE, CLASSES, readout or SumReadout(), labels, **arguments)


def class_network(readout: Readout | None = None) -> LocalNetwork:
    torch.manual_seed(0)
    blocks = [LocalBlock(m, LinearGoodness(), CrossEntropy(), Normalize("rms")) for m in conv_layers(1)]
    return LocalNetwork(blocks, SHAPE, CLASSES, readout or SumReadout())


def images(n: int = 7) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(3))


def by_hand(net: LocalNetwork, encoded: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Activations and inputs of the next blocks, written out."""
    x = Normalize("rms")(encoded)
    activations, onwards = [], []
    for block in net.blocks:
        h = block.layers(x)  # type: ignore[operator]
        x = h / h.flatten(1).square().mean(1).add(1e-8).sqrt().view(-1, *[1] * (h.dim() - 1))
        activations.append(h)
        onwards.append(x)
    return activations, onwards
