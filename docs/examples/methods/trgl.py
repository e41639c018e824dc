"""TRGL on the digits."""

# --8<-- [start:all]
from lightning.pytorch import Trainer

from lightning_ff import TRGL, ResidualMLP
from lightning_ff.data import Digits

model = TRGL(ResidualMLP(10, inputs=64, width=32, blocks=4), num_classes=10, input_shape=(1, 8, 8), tau=0.1, modules=2)
trainer = Trainer(max_epochs=2)
trainer.fit(model, Digits())
# --8<-- [end:all]
