"""BWBPF on the digits."""

# --8<-- [start:all]
from functools import partial

from lightning.pytorch import Trainer
from torch.optim import Adam

from lightning_ff import BWBPF, ConvNet
from lightning_ff.data import Digits

network = ConvNet(10, channels=1, widths=[16, 32])
model = BWBPF(network, 10, (1, 8, 8), cuts="blocks", optimizer=partial(Adam, lr=0.01))
trainer = Trainer(max_epochs=2)
trainer.fit(model, Digits(batch_size=50))
# --8<-- [end:all]
