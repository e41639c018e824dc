"""Forward-Forward on digits in plain torch: the same parts, no Trainer, the same weights.

python examples/plain_torch.py --epochs 5
"""

from __future__ import annotations

import argparse

import torch

from lightning_ff import AppendOneHot, LocalBlock, LocalNetwork, MeanSquare, Normalize, SumReadout, SymBa, mlp
from lightning_ff.data import Digits
from lightning_ff.negatives import wrong_labels


def build(data: Digits, widths: list[int], seed: int) -> LocalNetwork:
    """A network of fully connected blocks."""
    torch.manual_seed(seed)
    labels = AppendOneHot(on_value=3.0)
    inputs = labels.build(data.num_classes, data.input_shape)[0]
    blocks = [LocalBlock(layer, MeanSquare(), SymBa(alpha=8.0), Normalize("rms")) for layer in mlp(inputs, widths)]
    return LocalNetwork(
        blocks, data.input_shape, data.num_classes, SumReadout(), labels, input_normalization=Normalize("rms")
    )


def train(network: LocalNetwork, data: Digits, epochs: int, lr: float = 0.004) -> None:
    """Every block takes its step from its own loss; nothing flows back to the block before it."""
    optimizers = [torch.optim.Adam(block.parameters(), lr=lr, fused=True) for block in network.blocks]
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for image, label, index in loader:
            wrong = wrong_labels(label, data.num_classes, index, seed=0, epoch=epoch)
            x = network.normalize(torch.cat((network.labels(image, label), network.labels(image, wrong))))
            for block, optimizer in zip(network.blocks, optimizers, strict=True):
                h, goodness = block(x)
                block.loss(goodness, len(image)).backward()
                optimizer.step()
                optimizer.zero_grad()
                x = block.hand_over(h.detach())


@torch.no_grad()
def accuracy(network: LocalNetwork, data: Digits) -> float:
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
