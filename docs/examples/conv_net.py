"""A torchvision model block by block: cutting, training, transfer to other classes."""

# --8<-- [start:partition]
from torchvision.models import resnet18

from lightning_ff import partition

print(partition(resnet18(num_classes=10), input_shape=(3, 32, 32)))
# --8<-- [end:partition]

# --8<-- [start:model]
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

from lightning_ff import AuxiliaryGoodness, ScalableForwardForward

images, labels = torch.randn(64, 3, 32, 32), torch.arange(64) % 10
loader = DataLoader(TensorDataset(images, labels), batch_size=32)
model = ScalableForwardForward("resnet18", 10, (3, 32, 32), goodness=AuxiliaryGoodness(kernel_size=3))
trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False)
trainer.fit(model, loader)
model.eval()
scores = model(images)  # (64, 10)
# --8<-- [end:model]

# --8<-- [start:transfer]
torch.save(model.model.state_dict(), "resnet18.pt")
moved = ScalableForwardForward("resnet18", 3, (3, 32, 32), weights="resnet18.pt", frozen=4, lr_decay=0.9)
# --8<-- [end:transfer]

# --8<-- [start:deploy]
plain = model.deploy()
exported = torch.export.export(plain, (images[:1],))
torch.export.save(exported, "resnet18.pt2")
# --8<-- [end:deploy]
