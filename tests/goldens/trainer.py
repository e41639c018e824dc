"""Cases of whole runs: the command line with its `metrics.csv`, and resuming."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ff import CosineToEnd, FixedPool, GreedySchedule, HardLabel, LinearReadout, MineNegatives, RandomShift
from lightning_ff.cli import main
from tests.goldens.found import Found, plain, rows, together
from tests.goldens.runs import Save, Steps, digits, fit, left, of_digits

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.yaml"


def digits_example() -> Found:
    """`lightning-ff fit --config examples/digits.yaml`, cut short: the first 20 losses, weights, and `metrics.csv`."""
    os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"  # of what Lightning calls
    limits = {"max_epochs": 2, "limit_train_batches": 13, "log_every_n_steps": 4, "check_val_every_n_epoch": 1}
    flags = [f"--trainer.{name}={value}" for name, value in limits.items()]
    own = ["--trainer.enable_progress_bar=false", "--trainer.callbacks+=tests.goldens.runs.Steps"]
    cli = main(["fit", "--config", str(EXAMPLE), *flags, *own])
    (steps,) = (callback for callback in cli.trainer.callbacks if isinstance(callback, Steps))
    found = left(cli.trainer, cli.model, steps, first=20)
    folder = Path("logs", "digits", "version_0")
    columns, lines = rows(folder / "metrics.csv")
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    arguments = plain(saved["hyper_parameters"])
    adam = arguments["optimizer"]["init_args"]
    arguments["optimizer"]["init_args"] = {"lr": adam["lr"]}  # torch's own come and go with its versions
    structure = {"columns": columns, "keys": sorted(saved), "hyper_parameters": arguments}
    return Found({**found.structure, **structure}, {**found.values, "metrics.csv": lines})


def drawing(**arguments: Any) -> dict[str, Any]:
    """Arguments of a learner that draws random numbers in every way."""
    return {"dropout": 0.2, "augment": RandomShift(1), "negatives": HardLabel(fraction=0.5), **arguments}


def _resumed(
    name: str, arguments: Callable[[], dict[str, Any]], callbacks: Callable[[], list[Callback]] = list, epochs: int = 3
) -> Found:
    """A newly initialised learner is resumed after the eighth step, in the middle of an epoch, to the end."""
    keep = ModelCheckpoint(name, "{step}", every_n_train_steps=8, save_top_k=-1)
    flags: dict[str, Any] = {"data": digits(), "max_epochs": epochs}
    fit(of_digits(**arguments()), *callbacks(), keep, enable_checkpointing=True, **flags)
    return fit(of_digits(seed=1, **arguments()), *callbacks(), resume=Path(name, "step=8.ckpt"), **flags)


def _pending() -> Found:
    """A run that is resumed between two steps, with accumulated gradients."""

    def model(seed: int) -> LightningModule:
        read = LinearReadout(view="positive")
        return of_digits(seed=seed, accumulate_grad_batches=2, gradient_clip_val=0.05, readout=read)

    fit(model(0), Save(), data=digits())
    return fit(model(1), data=digits(), resume="saved.ckpt")


def resume() -> Found:
    """Resume in the middle of an epoch, with random draws, mining, accumulation, and a greedy schedule."""
    return together(
        cosine=_resumed("cosine", lambda: drawing(scheduler=CosineToEnd, readout=LinearReadout())),
        mining=_resumed("mining", drawing, lambda: [MineNegatives(fraction=0.5, above=0.0)]),
        accumulating=_resumed("accumulating", lambda: drawing(accumulate_grad_batches=2), epochs=4),
        pending=_pending(),
        greedy=_resumed("greedy", lambda: {"negatives": FixedPool()}, lambda: [GreedySchedule(2, cache=True)], -1),
    )
