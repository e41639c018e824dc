"""The method of the page methods/cwc."""

# --8<-- [start:use]
from lightning.pytorch import Trainer

from lightning_ff import ILT, CwC

model = CwC(num_classes=10, input_shape=(1, 28, 28))  # 20, 80, 240 and 480 channels
trainer = Trainer(callbacks=[ILT("mnist", "fast")])  # trainer.fit(model, data)
# --8<-- [end:use]
