"""Hinton's unsupervised variant: hybrid images as negatives, a linear readout on their features."""

# --8<-- [start:all]
from functools import partial

import torch
from lightning.pytorch import Trainer

from lightning_ff import ForwardForward, HybridImages, LinearReadout, Unlabelled
from lightning_ff.data import Digits

model = ForwardForward(
    10,
    (1, 8, 8),
    widths=[100, 100],
    labels=Unlabelled(),
    negatives=HybridImages(blurs=2),
    readout=LinearReadout(skip_first=True, view="positive"),
    optimizer=partial(torch.optim.Adam, lr=0.003),
)
trainer = Trainer(max_epochs=5)
trainer.fit(model, Digits(batch_size=50))
# --8<-- [end:all]
