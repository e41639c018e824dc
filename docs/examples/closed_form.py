"""A fitted goodness: class scores by a ridge regression on the features of fixed random blocks, in one epoch."""

# --8<-- [start:goodness]
from collections.abc import Callable

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional as F

from lightning_ff import Goodness, LocalBlock, LocalLearner, LocalNetwork, Normalize, SoftmaxReadout, mlp
from lightning_ff.data import Digits
from lightning_ff.target import Target


class Ridge(Goodness):
    """Least squares of one-hot labels on the activations of an epoch, with a ridge."""

    mode = "class"
    sums = ("gram", "moment")

    def __init__(self, ridge: float = 1.0) -> None:
        super().__init__()
        self.ridge = ridge

    def build(self, shape: torch.Size, num_classes: int) -> None:
        d = shape.numel()
        self.register_buffer("gram", torch.zeros(d, d, dtype=torch.float64))
        self.register_buffer("moment", torch.zeros(d, num_classes, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(d, num_classes))

    def observe(self, h: Tensor, target: Target) -> None:
        rows = h.flatten(1).double()
        self.gram += rows.T @ rows
        self.moment += rows.T @ F.one_hot(target.label, self.moment.shape[1]).double()

    def fit(self, reduce: Callable[[Tensor], Tensor]) -> None:
        gram, moment = reduce(self.gram), reduce(self.moment)
        ridge = self.ridge * torch.eye(len(gram), device=gram.device)
        self.weight.copy_(torch.linalg.solve(gram + ridge, moment))
        self.gram.zero_()
        self.moment.zero_()

    def forward(self, h: Tensor) -> Tensor:
        return h.flatten(1) @ self.weight.to(h.dtype)


# --8<-- [end:goodness]

# --8<-- [start:learner]
layers = [layer.requires_grad_(False) for layer in mlp(64, [500, 500])]
blocks = [LocalBlock(layer, Ridge(), normalization=Normalize("rms")) for layer in layers]
network = LocalNetwork(blocks, (1, 8, 8), 10, readout=SoftmaxReadout())
trainer = Trainer(max_epochs=1)
trainer.fit(LocalLearner(network), Digits(batch_size=50))
# --8<-- [end:learner]
