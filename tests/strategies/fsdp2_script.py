"""Started once per process, by itself and by Lightning: trains learners on two, and saves the weights that came out.

python -m tests.strategies.fsdp2_script FOLDER
"""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_ff import LocalFSDP2Strategy
from tests.strategies.runs import ADAMW, SGD, Look, Shares, learner


def train(mode: str, optimizer: str, dtype: str, file: str) -> None:
    """One learner; weights as a whole, and how many numbers of them a process holds."""

    def see(trainer: Trainer, module: Any) -> None:
        share = sum(p.to_local().numel() for p in module.parameters())
        weights = trainer.strategy.lightning_module_state_dict()
        if trainer.is_global_zero:
            torch.save({"weights": weights, "share": share}, file)

    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=LocalFSDP2Strategy(process_group_backend="gloo"),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Look(see)],
    )
    kind = getattr(torch, dtype)
    trainer.fit(learner(mode, {"SGD": SGD, "ADAMW": ADAMW}[optimizer]).to(kind), Shares(kind))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for mode, optimizer, dtype in product(("pair", "class"), ("SGD", "ADAMW"), ("float64", "float32")):
        train(mode, optimizer, dtype, f"{sys.argv[1]}/{mode}-{optimizer}-{dtype}.pt")
