"""Forward-Forward on digits in plain torch: the same parts, no Trainer, the same weights.

python examples/plain_torch.py --epochs 5
"""

from __future__ import annotations

import argparse
from functools import partial

import torch

import lightning_ff as ff
from lightning_ff.data import Digits
from lightning_ff.negatives import wrong_labels
from lightning_ff.optim import make_optimizers


def build(data: Digits, widths: list[int], seed: int) -> ff.LocalNetwork:
    """A network of fully connected blocks."""
    torch.manual_seed(seed)
    labels = ff.AppendOneHot(on_value=3.0)
    inputs = labels.build(data.num_classes, data.input_shape)[0]
    blocks = [
        ff.LocalBlock(layer, ff.MeanSquare(), ff.SymBa(alpha=8.0), ff.Normalize("rms"))
        for layer in ff.mlp(inputs, widths)
    ]
    return ff.LocalNetwork(
        blocks, data.input_shape, data.num_classes, ff.SumReadout(), labels, input_normalization=ff.Normalize("rms")
    )


def train(network: ff.LocalNetwork, data: Digits, epochs: int, lr: float = 0.004) -> None:
    """Train every block from its own loss, with no gradient to the block before it."""
    sweep = ff.Sweep(network, make_optimizers(network.owners, partial(torch.optim.Adam, lr=lr)))
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for image, label, index in loader:
            wrong = wrong_labels(label, data.num_classes, index, seed=0, epoch=epoch)
            pairs = torch.cat((network.labels(image, label), network.labels(image, wrong)))
            sweep(network.normalize(pairs), ff.Pairs(len(image)))


@torch.no_grad()
def accuracy(network: ff.LocalNetwork, data: Digits) -> float:
    """Share of the test images whose highest score is their class."""
    network.eval()
    hits = [network(image).argmax(1) == label for image, label, _ in data.test_dataloader()]
    return float(torch.cat(hits).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = Digits(batch_size=50, seed=given.seed)
    data.setup("fit")
    data.setup("test")
    network = build(data, [500, 500], given.seed)
    train(network, data, given.epochs)
    print(f"test accuracy {accuracy(network, data):.4f} after {given.epochs} epochs")


if __name__ == "__main__":
    main()
