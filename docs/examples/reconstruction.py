"""Blocks that learn from a term alone: each reconstructs its input, and a linear readout learns beside them."""

# --8<-- [start:all]
from functools import partial

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_ff import LinearReadout, LocalBlock, LocalLearner, LocalNetwork, Normalize, Term, mlp
from lightning_ff.data import Digits
from lightning_ff.target import Target


class Reconstruction(Term):
    """Squared error of the block's input from its activation, by a linear decoder."""

    def build(self, shape: torch.Size, inputs: torch.Size, num_classes: int) -> None:
        self.decoder = nn.Linear(shape.numel(), inputs.numel())

    def forward(self, x: Tensor, h: Tensor, target: Target) -> Tensor:
        return (self.decoder(h.flatten(1)) - x.flatten(1)).square().mean()


blocks = [LocalBlock(layer, terms=[Reconstruction()], normalization=Normalize("rms")) for layer in mlp(64, [64, 64])]
network = LocalNetwork(blocks, (1, 8, 8), 10, readout=LinearReadout(skip_first=False))
model = LocalLearner(network, optimizer=partial(torch.optim.Adam, lr=0.003))
trainer = Trainer(max_epochs=10)
trainer.fit(model, Digits(batch_size=50))
# --8<-- [end:all]
