"""Every precision: goodness in float32, one update of the loss scale per batch, gradients unscaled before the clip."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_ff import AppendOneHot, ForwardForward, LinearReadout, SumReadout, SymBa

STEPS, BATCH, CLASSES = 20, 16, 4


def batches() -> DataLoader:
    g = torch.Generator().manual_seed(1)
    x = torch.rand(STEPS, BATCH, 1, 5, 5, generator=g)
    y = torch.randint(0, CLASSES, (STEPS, BATCH), generator=g)
    index = torch.arange(STEPS * BATCH).view(STEPS, BATCH)
    return DataLoader([tuple(row) for row in zip(x, y, index, strict=True)], batch_size=None)


def learner(**kwargs: Any) -> ForwardForward:
    torch.manual_seed(0)
    kwargs = {"optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9)} | kwargs
    return ForwardForward(CLASSES, (1, 5, 5), widths=[32, 24], loss=SymBa(), labels=AppendOneHot(1.0), **kwargs)


def fit(model: ForwardForward, **flags: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet, **flags)
    trainer.fit(model, batches())
    return trainer


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.network.parameters()])


class Seen(nn.Module):
    """Records the dtypes of inputs and outputs of a goodness."""

    def __init__(self, model: ForwardForward) -> None:
        super().__init__()
        self.types: set[tuple[torch.dtype, torch.dtype]] = set()
        for block in model.blocks:
            block.register_forward_hook(self._record)

    def _record(self, block: nn.Module, inputs: Any, out: tuple[Any, torch.Tensor | None]) -> None:
        if out[1] is not None:  # a pass for the readout measures no goodness
            self.types.add((out[0].dtype, out[1].dtype))


@pytest.mark.parametrize(
    ("precision", "activation", "weight", "bound"),
    [
        ("bf16-mixed", torch.bfloat16, torch.float32, 0.05),
        ("bf16-true", torch.bfloat16, torch.bfloat16, 0.05),
        ("64-true", torch.float64, torch.float64, 1e-5),
    ],
)
def test_precision(precision: Any, activation: torch.dtype, weight: torch.dtype, bound: float) -> None:
    plain, model = learner(), learner()
    start = weights(plain)
    fit(plain)
    seen = Seen(model)
    wide = torch.float64 if precision == "64-true" else torch.float32
    fit(model, precision=precision)
    assert seen.types == {(activation, wide)}
    moved = (weights(plain) - start).abs().max()
    assert (weights(plain) - weights(model)).abs().max() < bound < moved
    assert {p.dtype for p in model.network.blocks.parameters()} == {weight}


def scaled(scaler: torch.amp.GradScaler) -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", scaler)


@pytest.mark.parametrize("backward", ["per_block", "summed"])
@pytest.mark.parametrize("readout", [SumReadout, LinearReadout])
def test_fp16_scales_once_per_batch(backward: Any, readout: Any) -> None:
    """The scale doubles every 5 batches, not every 5 block steps, and weights stay near those of float32."""
    plain, model = learner(readout=readout()), learner(readout=readout(), backward=backward)
    fit(plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=5)
    seen = Seen(model)
    trainer = fit(model, plugins=[scaled(scaler)])
    assert seen.types == {(torch.float16, torch.float32)}
    assert scaler.get_scale() == 16.0 * 2 ** (STEPS // 5)
    assert trainer.global_step == STEPS
    assert (weights(plain) - weights(model)).abs().max() < 0.01


def test_fp16_clips_unscaled_gradients() -> None:
    """With gradients clipped to a norm far below their own, scaling before the clip would show."""
    clip = {"gradient_clip_val": 1e-2}
    plain, model = learner(**clip), learner(**clip)
    fit(plain)
    fit(model, plugins=[scaled(torch.amp.GradScaler("cpu", init_scale=1024.0))])
    assert (weights(plain) - weights(model)).abs().max() < 1e-4
    free = learner()
    fit(free)
    assert (weights(plain) - weights(free)).abs().max() > 1e-2


def test_fp16_skips_a_step_that_overflows() -> None:
    """A scale beyond float16 makes every gradient infinite: weights stay, the scale is halved once per batch."""
    model = learner()
    start = weights(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, backoff_factor=0.5)
    trainer = fit(model, plugins=[scaled(scaler)], max_steps=3)
    assert trainer.global_step == 3
    assert torch.equal(weights(model), start)
    assert scaler.get_scale() == 2.0**57


def test_fp16_refuses_a_step_per_block() -> None:
    with pytest.raises(ValueError, match=r"step='block'.*16-mixed.*step='batch'"):
        fit(learner(step="block"), plugins=[scaled(torch.amp.GradScaler("cpu"))])
