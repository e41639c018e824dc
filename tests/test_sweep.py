"""Variants of the sweep against each other: equal where they should be, different where not."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from lightning_ff import Normalize, Pairs, PeerNormalization
from tests.sweep_runs import BATCH, CLASSES, STEPS, data, fit, learner, weights


@pytest.mark.parametrize(
    "variant",
    [{"backward": "summed"}, {"step": "block"}, {"optimizer": partial(torch.optim.Adam, lr=1e-2, fused=False)}],
    ids=["summed", "step_block", "not_fused"],
)
def test_variants_give_equal_weights(variant: dict[str, Any]) -> None:
    plain, other = learner(), learner(**variant)
    fit(plain)
    fit(other)
    assert (weights(plain) - weights(other)).abs().max() < 1e-6


def test_no_gradient_crosses_a_border() -> None:
    model = learner()
    network = model.network
    x, y, _ = data(1)[0]
    inputs = network.normalize(torch.cat([model.labels(x, y), model.labels(x, (y + 1) % CLASSES)]))
    for block in model.blocks:
        h, g = block(inputs)
        block.loss(g, Pairs(BATCH)).backward()
        seen = [any(p.grad is not None for p in other.parameters()) for other in model.blocks]
        assert seen == [other is block for other in model.blocks]
        block.zero_grad()
        inputs = block.hand_over(h.detach())
    assert h.grad_fn is not None


def test_normalisation_of_an_input_may_carry_gradient_only_inside_a_segment() -> None:
    """With one segment the gradient passes the normalisation between blocks: the first block's weights differ."""
    local, whole = learner(), learner(segments="sum_of_losses")
    fit(local)
    fit(whole)
    assert isinstance(local.blocks[0].normalization, Normalize)
    assert (weights(local.blocks[0]) - weights(whole.blocks[0])).abs().max() > 1e-4
    assert (weights(local.blocks[2]) - weights(whole.blocks[2])).abs().max() > 1e-4


def test_terms_are_added_in_every_segment_kind() -> None:
    term = [PeerNormalization(weight=0.5)]
    plain, summed, block = (
        learner(terms=term),
        learner(terms=term, backward="summed"),
        learner(terms=term, step="block"),
    )
    for model in (plain, summed, block):
        fit(model)
    assert (weights(plain) - weights(summed)).abs().max() < 1e-6
    assert (weights(plain) - weights(block)).abs().max() < 1e-6
    without = learner()
    fit(without)
    assert (weights(plain) - weights(without)).abs().max() > 1e-4


@pytest.mark.parametrize("step", ["batch", "block"])
def test_accumulation_equals_the_large_batch(step: Any) -> None:
    """Two batches of 12 averaged are one of 24, since every side of the loss is a mean."""
    small = learner(accumulate_grad_batches=2, step=step)
    trainer = fit(small)
    joined = [
        tuple(torch.cat(pair) for pair in zip(a, b, strict=True))
        for a, b in zip(data()[::2], data()[1::2], strict=True)
    ]
    large = learner(step=step)
    fit(large, joined)
    assert trainer.global_step == STEPS // 2
    assert (weights(small) - weights(large)).abs().max() < 1e-6


def test_accumulation_steps_on_the_last_batch_too() -> None:
    trainer = fit(learner(accumulate_grad_batches=3), data(7))
    assert trainer.global_step == 3
