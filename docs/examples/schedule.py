"""Block after block."""

# --8<-- [start:all]
from lightning.pytorch import Trainer

from lightning_ff import FixedPool, ForwardForward, GreedySchedule
from lightning_ff.data import Digits

model = ForwardForward(10, (1, 8, 8), widths=[64, 64], negatives=FixedPool())
greedy = GreedySchedule(epochs=3)
trainer = Trainer(max_epochs=-1, callbacks=[greedy])
trainer.fit(model, Digits(batch_size=50))  # six epochs
# --8<-- [end:all]
