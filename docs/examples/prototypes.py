"""A method from a goodness alone: distance to class prototypes."""

# --8<-- [start:all]
import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_ff import MLP, Goodness, ScalableForwardForward
from lightning_ff.data import Digits


class Prototypes(Goodness):
    """Minus the distance to one learned prototype per class."""

    mode = "class"

    def build(self, shape, num_classes):
        self.prototypes = nn.Parameter(torch.rand(num_classes, shape.numel()))

    def forward(self, h):
        return -torch.cdist(h.flatten(1), self.prototypes)


model = ScalableForwardForward(MLP(10, 64, [256, 256]), 10, (1, 8, 8), "layers", Prototypes(), head="none")
trainer = Trainer(max_epochs=30)
trainer.fit(model, Digits(batch_size=50))
trainer.test(model, Digits())
# --8<-- [end:all]
