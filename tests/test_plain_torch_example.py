"""The example without a Trainer reaches the same weights as a learner under one, and as a loop written by hand."""

from __future__ import annotations

import ast
import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_ff import AppendOneHot, ForwardForward, LocalNetwork, Pairs, SymBa
from lightning_ff.data import Digits
from lightning_ff.negatives import wrong_labels

EXAMPLE = Path(__file__).parents[1] / "examples" / "plain_torch.py"


def example() -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("plain_torch", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    return plain


def by_hand(network: LocalNetwork, data: Digits, epochs: int, lr: float = 0.004) -> None:
    """The training loop written out over the blocks: what a sweep has to do."""
    optimizers = [torch.optim.Adam(block.parameters(), lr=lr, fused=True) for block in network.blocks]
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        for image, label, index in loader:
            wrong = wrong_labels(label, data.num_classes, index, seed=0, epoch=epoch)
            x = network.normalize(torch.cat((network.labels(image, label), network.labels(image, wrong))))
            for block, optimizer in zip(network.stack, optimizers, strict=True):
                h, goodness = block(x)
                block.loss(goodness, Pairs(len(image))).backward()
                optimizer.step()
                optimizer.zero_grad()
                x = block.hand_over(h.detach())


def test_same_weights_as_a_loop_by_hand() -> None:
    plain, data = example(), Digits(batch_size=50)
    data.setup("fit")
    one, two = (plain.build(data, [32, 16], seed=0) for _ in range(2))
    plain.train(one, data, epochs=2)
    by_hand(two, data, epochs=2)
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert float((ours - theirs).detach().abs().max()) == 0.0


def test_the_example_holds_no_loop_over_blocks() -> None:
    loops = [node for node in ast.walk(ast.parse(EXAMPLE.read_text())) if isinstance(node, ast.For)]
    assert [ast.unparse(node.iter) for node in loops] == ["range(epochs)", "loader"]
    assert "block.loss" not in EXAMPLE.read_text()


def test_same_weights_as_under_a_trainer() -> None:
    plain, data = example(), Digits(batch_size=50)
    data.setup("fit")
    network = plain.build(data, [32, 16], seed=0)
    plain.train(network, data, epochs=2)

    torch.manual_seed(0)
    model = ForwardForward(
        10,
        (1, 8, 8),
        widths=[32, 16],
        labels=AppendOneHot(on_value=3.0),
        loss=SymBa(alpha=8.0),
        optimizer=partial(torch.optim.Adam, lr=0.004),
    )
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=Digits(batch_size=50))
    ours, theirs = (torch.cat([p.flatten() for p in n.parameters()]) for n in (network, model.network))
    assert torch.equal(ours, theirs)
