"""UFF: cells against a plain loop of auto-encoders, and the classifier beside them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff import UFF, GaussianNoise, Labels, Reconstruction
from tests.strategies.runs import BATCH, CLASSES, SGD, SHAPE, Shares, trained

X, Y = Shares(torch.float64).samples.tensors[:2]


def uff(**arguments: Any) -> UFF:
    torch.manual_seed(0)
    return UFF(CLASSES, SHAPE, **{"optimizer": SGD, **arguments})


@pytest.mark.parametrize("sizes", [{"widths": [9, 8]}, {"channels": [3, 4]}], ids=["linear", "maps"])
def test_equals_a_plain_loop(sizes: dict[str, Any]) -> None:
    model = uff(**sizes).double()
    twins: Any = deepcopy(model.blocks)
    classifier: Any = deepcopy(model.network.readout)
    optimizers = [SGD(twin.parameters()) for twin in (*twins, classifier)]
    for images, label in zip(X.split(BATCH), Y.split(BATCH), strict=True):
        x, latents = images, list[Tensor]()
        for twin, optimizer in zip(twins, optimizers, strict=False):
            h = twin.layers(x)
            optimizer.zero_grad()
            (twin.terms[0].decoder(h).flatten(1) - x.flatten(1)).square().mean().backward()
            optimizer.step()
            x = F.layer_norm(h.detach(), h.shape[1:], eps=1e-8)
            latents.append(x.flatten(1))
        optimizers[-1].zero_grad()
        scores = sum(linear(latent) for linear, latent in zip(classifier.linear, latents, strict=True))
        F.cross_entropy(scores, label).backward()
        optimizers[-1].step()
    trained(model, 1, torch.float64)
    for ours, theirs in zip((*model.blocks, model.network.readout), (*twins, classifier), strict=True):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_denoising_cell_decodes_the_input_without_noise() -> None:
    model = uff(widths=[9], noise=0.5)
    cell, x = model.blocks[0].train(), X[:5].float()
    torch.manual_seed(3)
    h = cell.layers(x)
    torch.manual_seed(3)
    noisy = x + 0.5 * torch.randn_like(x)
    torch.testing.assert_close(h, cell.layers[2](noisy.flatten(1)).relu())
    (value,) = cell.term_losses(x, h, Labels(Y[:5]))
    decoder: Any = cell.terms[0]
    torch.testing.assert_close(value, F.mse_loss(decoder.decoder(h), x.flatten(1)))
    assert torch.equal(GaussianNoise(0.5).eval()(x), x)


def test_a_sigmoid_ends_the_decoder() -> None:
    term = Reconstruction(weight=2.0, output="sigmoid")
    term.build(torch.Size((4,)), torch.Size((3,)), 2)
    x, h = torch.rand(5, 3), torch.rand(5, 4)
    linear: Any = term.decoder[1]  # type: ignore[index]
    torch.testing.assert_close(term(x, h, Labels(torch.zeros(5))), 2 * F.mse_loss(linear(h).sigmoid(), x))


def test_labels_reach_the_classifier_alone() -> None:
    """Cells have the same weights whatever the labels."""
    one, two = uff(widths=[9, 8]), uff(widths=[9, 8])

    class Shuffled(Shares):
        def __init__(self, dtype: torch.dtype = torch.float32) -> None:
            super().__init__(dtype)
            x, y, index = self.samples.tensors
            self.samples = type(self.samples)(x, y.flip(0), index)

    trained(one, 1)
    trained(two, 1, data=Shuffled)
    assert all(
        torch.equal(a, b) for a, b in zip(one.network.blocks.parameters(), two.network.blocks.parameters(), strict=True)
    )
    assert not torch.equal(next(one.network.readout.parameters()), next(two.network.readout.parameters()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uff(), "widths=None, channels=None: give one of the two"),
        (lambda: uff(widths=[8], channels=[8]), "give one of the two"),
        (lambda: UFF(4, (36,), channels=[8]), r"channels=\[8\] for inputs \(36,\): give some, for maps"),
        (lambda: uff(channels=[]), r"channels=\[\]"),
        (lambda: uff(widths=[8], noise=-1.0), "noise=-1.0: must be 0 or more"),
    ],
)
def test_bad_input(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
