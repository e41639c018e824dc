"""Learning-rate finder and export."""

# --8<-- [start:model]
import torch
from lightning.pytorch import Trainer

from lightning_ff import AppendOneHot, ForwardForward
from lightning_ff.data import Digits

data = Digits(batch_size=50)
model = ForwardForward(10, (1, 8, 8), widths=[64, 64], labels=AppendOneHot())
# --8<-- [end:model]

# --8<-- [start:lr]
from lightning.pytorch.tuner import Tuner

Tuner(Trainer(max_epochs=5)).lr_find(model, datamodule=data)
print(model.lr)  # the suggestion of the finder, used by the next fit
# --8<-- [end:lr]

# --8<-- [start:export]
model.eval()
images = torch.rand(16, 1, 8, 8)
batch = torch.export.Dim("batch", min=2, max=1024)
exported = torch.export.export(model.network, (images,), dynamic_shapes=({0: batch},))
scores = exported.module()(images[:3])  # equal to model(images[:3])
# --8<-- [end:export]
