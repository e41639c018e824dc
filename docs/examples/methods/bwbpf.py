"""BWBPF on the digits."""

# --8<-- [start:all]
from lightning.pytorch import Trainer

from lightning_ff import BWBPF, ConvNet
from lightning_ff.data import Digits

model = BWBPF(ConvNet(10, channels=1, widths=[8, 16]), num_classes=10, input_shape=(1, 8, 8), cuts="blocks")
trainer = Trainer(max_epochs=2)
trainer.fit(model, Digits())
# --8<-- [end:all]
