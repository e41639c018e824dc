"""Helpers of the tests of the sweep: a small learner, its batches, a quiet Trainer."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_ff import AppendOneHot, ForwardForward, LocalLearner, SymBa

STEPS, BATCH, CLASSES = 20, 12, 4
WIDTHS = [16, 12, 8]


def data(steps: int = STEPS) -> list[tuple[Tensor, Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    x = torch.rand(steps * BATCH, 1, 5, 5, generator=g)
    y = torch.randint(0, CLASSES, (steps * BATCH,), generator=g)
    index = torch.arange(steps * BATCH)
    return list(zip(x.split(BATCH), y.split(BATCH), index.split(BATCH), strict=True))


def loader(batches: list[Any]) -> DataLoader:
    return DataLoader(batches, batch_size=None)


def learner(**kwargs: Any) -> ForwardForward:
    torch.manual_seed(0)
    kwargs = {"loss": SymBa(), "optimizer": partial(torch.optim.Adam, lr=1e-2)} | kwargs
    return ForwardForward(CLASSES, (1, 5, 5), widths=WIDTHS, labels=AppendOneHot(on_value=1.0), **kwargs)


def fit(model: LocalLearner, batches: list[Any] | None = None, **flags: Any) -> Trainer:
    trainer = Trainer(
        **{"max_epochs": 1, **flags},
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader(batches or data()))
    return trainer


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])
