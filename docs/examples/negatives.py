"""Negatives that change during training."""

# --8<-- [start:all]
from functools import partial

import torch
from lightning.pytorch import Trainer

from lightning_ff import (
    AppendOneHot,
    FixedPool,
    ForwardForward,
    MineNegatives,
    NegativePictures,
    RefreshNegatives,
    SymBa,
)
from lightning_ff.data import Digits

model = ForwardForward(
    10,
    (1, 8, 8),
    widths=[64, 64],
    labels=AppendOneHot(),
    loss=SymBa(),
    negatives=FixedPool(seed=0),
    optimizer=partial(torch.optim.Adam, lr=0.003),
)
trainer = Trainer(
    max_epochs=6,
    callbacks=[
        # the pool is drawn again in epochs 2 and 4
        RefreshNegatives(every_n_epochs=2),
        # from this accuracy on, a quarter of the batches gets hard negatives
        MineNegatives(fraction=0.25, above=0.3, monitor="val/acc"),
        NegativePictures(count=10),
    ],
)
trainer.fit(model, Digits(batch_size=50))
# --8<-- [end:all]
