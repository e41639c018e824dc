"""The residual network and its blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_ff import ResidualMLP, partition


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_output_is_that_of_the_formula(blocks: int) -> None:
    torch.manual_seed(0)
    network, x = ResidualMLP(5, inputs=12, width=6, blocks=blocks), torch.randn(4, 3, 2, 2)
    p = dict(network.named_parameters())
    h = x.flatten(1) @ p["0.1.weight"].T + p["0.1.bias"]
    for k in range(1, blocks + 1):
        hidden = (h @ p[f"{k}.first.weight"].T + p[f"{k}.first.bias"]).clamp(min=0)
        h = h + hidden @ p[f"{k}.second.weight"].T + p[f"{k}.second.bias"]
    last = blocks + 1
    torch.testing.assert_close(network(x), h @ p[f"{last}.weight"].T + p[f"{last}.bias"])


def test_it_is_cut_at_its_residual_blocks() -> None:
    network = ResidualMLP(5, inputs=12, width=6, blocks=3)
    cut = partition(network, input_shape=(3, 2, 2))
    assert cut.names == ["0", "1", "2", "3", "4"]


def test_a_fixed_encoder_requires_no_gradient() -> None:
    names = {n for n, p in ResidualMLP(5, 12, 6, 2, "fixed").named_parameters() if not p.requires_grad}
    assert names == {"0.1.weight", "0.1.bias"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": 0}, "blocks=0: must be at least 1"),
        ({"width": -1}, "width=-1: must be at least 1"),
        ({"encoder": "none"}, "encoder='none': choose one of 'learned', 'fixed'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualMLP(5, inputs=12, **arguments)
