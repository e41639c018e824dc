"""Convolutions of your own and a plain DataLoader."""

# --8<-- [start:data]
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
labels = torch.tensor(digits.target)
train = DataLoader(TensorDataset(images[:1500], labels[:1500]), batch_size=50, shuffle=True)
val = DataLoader(TensorDataset(images[1500:], labels[1500:]), batch_size=500)
# --8<-- [end:data]

# --8<-- [start:model]
from functools import partial

from lightning.pytorch import Trainer
from torch import nn

from lightning_ff import ForwardForward, LabelChannel, SymBa

network = nn.Sequential(
    nn.Conv2d(2, 16, 3, padding=1),  # one channel of the image and one of the label
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1),
    nn.ReLU(),
)
model = ForwardForward(
    num_classes=10,
    input_shape=(1, 8, 8),
    blocks=[network[:2], network[2:]],
    labels=LabelChannel(),
    loss=SymBa(),
    optimizer=partial(torch.optim.Adam, lr=0.003),
)
trainer = Trainer(max_epochs=3)
trainer.fit(model, train, val)
# --8<-- [end:model]

# --8<-- [start:load]
path = trainer.checkpoint_callback.best_model_path
again = ForwardForward.load_from_checkpoint(path, blocks=[network[:2], network[2:]])
# --8<-- [end:load]
