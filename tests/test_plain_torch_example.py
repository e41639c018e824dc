"""The example without a Trainer reaches the same weights as a learner under one."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from lightning_ff import AppendOneHot, ForwardForward, SymBa
from lightning_ff.data import Digits

EXAMPLE = Path(__file__).parents[1] / "examples" / "plain_torch.py"


def test_same_weights_as_under_a_trainer() -> None:
    spec = importlib.util.spec_from_file_location("plain_torch", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    data = Digits(batch_size=50)
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
