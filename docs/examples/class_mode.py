"""Class mode: one pass, a goodness with parameters of its own, a cross-entropy per block."""

# --8<-- [start:goodness]
import torch
from torch import Tensor, nn

from lightning_ff import Goodness


class Prototypes(Goodness):
    """Minus the mean squared distance to one learned prototype per class."""

    mode = "class"

    def build(self, shape: torch.Size, num_classes: int) -> None:
        self.prototypes = nn.Parameter(torch.rand(num_classes, shape.numel()))

    def forward(self, h: Tensor) -> Tensor:
        # h is float32 also where weights are bfloat16
        prototypes = self.prototypes.to(h.dtype)
        return -(h.flatten(1).unsqueeze(1) - prototypes).square().mean(2)


# --8<-- [end:goodness]


# --8<-- [start:learner]
from functools import partial

from lightning.pytorch import Trainer

from lightning_ff import (
    CrossEntropy,
    LinearGoodness,
    LocalBlock,
    LocalLearner,
    LocalNetwork,
    Normalize,
    SumReadout,
    mlp,
)
from lightning_ff.data import Digits

first, second = mlp(64, [64, 64])
network = LocalNetwork(
    [
        LocalBlock(first, Prototypes(), CrossEntropy(), Normalize("rms")),
        LocalBlock(second, LinearGoodness(), CrossEntropy(), Normalize("rms")),
    ],
    input_shape=(1, 8, 8),
    num_classes=10,
    readout=SumReadout(),
)
model = LocalLearner(network, optimizer=partial(torch.optim.Adam, lr=0.003))
trainer = Trainer(max_epochs=5)
trainer.fit(model, Digits(batch_size=50))
# --8<-- [end:learner]
