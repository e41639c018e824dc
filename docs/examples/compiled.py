"""Blocks compiled one by one."""

# --8<-- [start:all]
from lightning.pytorch import Trainer

from lightning_ff import ForwardForward
from lightning_ff.data import Digits

model = ForwardForward(10, (1, 8, 8), widths=[64, 64])
for block in model.blocks:
    block.compile()
Trainer(max_epochs=2).fit(model, Digits(batch_size=50))
# --8<-- [end:all]
