"""Started once per process, by itself and by Lightning: trains learners on two processes and saves their weights.

python -m tests.strategies.fsdp2_script FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything

from lightning_ff import ForwardForward, GreedySchedule, LocalFSDP2Strategy, ScalableForwardForward
from lightning_ff.data import Digits
from tests.strategies.runs import ADAMW, CLASSES, SGD, SHAPE, Look, Shares, layers, learner


def train(mode: str, optimizer: str, dtype: str, file: str, **flags: Any) -> None:
    """Train one learner; saves its full weights, and the number of entries that a process holds."""
    torch_dtype = getattr(torch, dtype)

    def save(trainer: Trainer, module: Any) -> None:
        share = sum(p.to_local().numel() for p in module.parameters())
        weights = trainer.strategy.lightning_module_state_dict()
        if trainer.is_global_zero:
            torch.save({"weights": weights, "share": share}, file)

    fit(learner(mode, {"SGD": SGD, "ADAMW": ADAMW}[optimizer]).to(torch_dtype), save, torch_dtype, **flags)


def fit(model: LightningModule, save: Callable[..., None], dtype: torch.dtype = torch.float32, **flags: Any) -> None:
    """Train on two processes; every process calls a function at the end."""
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=LocalFSDP2Strategy(process_group_backend="gloo"),
        **{"max_epochs": 1, **flags},
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.callbacks.append(Look(save))  # type: ignore[attr-defined]
    trainer.fit(model, Shares(dtype))


def statistics(folder: str) -> None:
    """Save the running statistics of batch norm of every process after one batch."""

    def save(trainer: Trainer, module: Any) -> None:
        found = {name.rpartition(".")[2]: value for name, value in module.named_buffers() if "running_" in name}
        torch.save(found, Path(folder, f"statistics{trainer.global_rank}.pt"))

    seed_everything(0, verbose=False)
    fit(ScalableForwardForward(layers(batch_norm=True), CLASSES, SHAPE), save, limit_train_batches=1)


def uneven(folder: str, processes: int = 2) -> dict[str, float]:
    """Metrics of a validation in which the first process has two batches and the second has one."""
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=LocalFSDP2Strategy(process_group_backend="gloo") if processes > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
    )
    data = Digits(val_size=181, eval_batch_size=90 if processes > 1 else 181)
    (found,) = trainer.validate(ForwardForward(10, (1, 8, 8), [16, 12]), data, verbose=False)
    if trainer.is_global_zero:
        Path(folder, "uneven.json").write_text(json.dumps(found))
    return dict(found)


def refused(folder: str) -> None:
    """Kept outputs raise; writes the error message to a file."""
    try:
        train("class", "SGD", "float32", "", callbacks=[GreedySchedule(2, cache=True)], max_epochs=-1)
    except ValueError as error:
        Path(folder, "refused").write_text(str(error))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2:] == ["refused"]:
        refused(sys.argv[1])
        sys.exit()
    uneven(sys.argv[1])
    statistics(sys.argv[1])
    train("class", "SGD", "float64", f"{sys.argv[1]}/greedy.pt", callbacks=[GreedySchedule(2)], max_epochs=-1)
    for mode, optimizer, dtype in product(("pair", "class"), ("SGD", "ADAMW"), ("float64", "float32")):
        train(mode, optimizer, dtype, f"{sys.argv[1]}/{mode}-{optimizer}-{dtype}.pt")
