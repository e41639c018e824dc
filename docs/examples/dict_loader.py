"""A data set that yields dicts with the sample's index, so that a fixed pool of negatives works."""

# --8<-- [start:all]
import torch
from lightning.pytorch import Trainer
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset

from lightning_ff import AppendOneHot, FixedPool, ForwardForward


class MyDigits(Dataset):
    """Any map-style data set: its keys are the batch's."""

    def __init__(self) -> None:
        digits = load_digits()
        self.images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        self.labels = torch.tensor(digits.target)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {"image": self.images[index], "label": self.labels[index], "index": index}


labels, negatives = AppendOneHot(), FixedPool()
model = ForwardForward(10, (1, 8, 8), widths=[64, 64], labels=labels, negatives=negatives)
trainer = Trainer(max_epochs=2)
trainer.fit(model, DataLoader(MyDigits(), batch_size=50, shuffle=True))
# --8<-- [end:all]
