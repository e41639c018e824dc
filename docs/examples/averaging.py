"""Averaged weights, with Lightning 2.6 or newer."""

# --8<-- [start:all]
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from lightning_ff import ForwardForward
from lightning_ff.data import Digits

model = ForwardForward(10, (1, 8, 8), widths=[64, 64])
trainer = Trainer(max_epochs=2, callbacks=[EMAWeightAveraging(decay=0.99)])
trainer.fit(model, Digits(batch_size=50))
# --8<-- [end:all]
