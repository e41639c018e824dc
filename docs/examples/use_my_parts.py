"""The parts of my_parts.py from Python."""

# --8<-- [start:all]
from functools import partial

import torch
from lightning.pytorch import Trainer

from lightning_ff import AppendOneHot, ForwardForward
from lightning_ff.data import Digits
from my_parts import ActivityL1, DepthWeighted, Margin, NeighbourLabel, TopK

model = ForwardForward(
    num_classes=10,
    input_shape=(1, 8, 8),
    widths=[64, 64],
    labels=AppendOneHot(),
    goodness=TopK(k=12),
    loss=Margin(margin=2.0),
    terms=[ActivityL1(weight=0.001)],
    negatives=NeighbourLabel(seed=0),
    readout=DepthWeighted(base=2.0),
    optimizer=partial(torch.optim.Adam, lr=0.003),
)
trainer = Trainer(max_epochs=5)
trainer.fit(model, Digits(batch_size=50))
# --8<-- [end:all]
