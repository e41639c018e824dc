"""Cases of two processes on the CPU, which are forked off with one thread each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from lightning_ff import LinearReadout
from tests.goldens.found import Found, digest, kind, rows, together
from tests.goldens.nets import Net
from tests.goldens.runs import ADAM, QUIET, conv, digits, pair


class Keep(Callback):
    """Saves a checkpoint at the end, in which all processes take part."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint("end.ckpt")


def _of_two(model: LightningModule, strategy: str, **arguments: Any) -> Found:
    """Two epochs on digits: weights, and what was logged by step."""
    logger = CSVLogger("csv", name="", version=f"{strategy} {type(model).__name__}")
    flags = {**QUIET, "logger": logger, "max_epochs": 2, "callbacks": [Keep()]}
    Trainer(**flags, strategy=f"{strategy}_fork", devices=2).fit(model, digits(**arguments))
    saved = torch.load("end.ckpt", weights_only=True)
    columns, lines = rows(Path(logger.log_dir, "metrics.csv"))
    logged = {c: sorted([line["step"], line[c]] for line in lines if c in line) for c in columns if c != "step"}
    weights = saved["state_dict"]
    structure = {
        "columns": columns,
        "keys": sorted(saved),
        "weights": {name: kind(value) for name, value in weights.items()},
    }
    return Found(structure, {"logged": logged, "weights": {name: digest(value) for name, value in weights.items()}})


def _both_modes(strategy: str, batch_size: int, **of_pair: Any) -> Found:
    shape = {"num_classes": 10, "input_shape": (1, 8, 8)}
    models = {"pair": pair(**shape, **of_pair), "class": conv(partial(Net, 10), **shape, optimizer=ADAM)}
    return together(**{mode: _of_two(model, strategy, batch_size=batch_size) for mode, model in models.items()})


def ddp() -> Found:
    """`ff_ddp`: each process has half of every batch."""
    return _both_modes("ff_ddp", 8, accumulate_grad_batches=2, gradient_clip_val=0.05, readout=LinearReadout())


def pipeline() -> Found:
    """`ff_pipeline`: each process has some of the blocks."""
    return _both_modes("ff_pipeline", 16, readout=LinearReadout(view="positive"))
