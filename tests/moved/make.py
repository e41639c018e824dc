"""Made the files of this folder with the code of commit 607a61a, on whose paths they depend.

    PYTHONPATH=CHECKOUT_OF_607a61a OMP_NUM_THREADS=1 python tests/moved/make.py

- `config.yaml` and `line.ckpt`: configuration and last checkpoint of a run of the command line.
- `python.ckpt`: checkpoint of a run from Python.
- `sampler.pt` and `network.pt`: a pickled negative sampler, and the network of the run from Python.
- `scores.json`: class scores of a few digits, by the checkpoints and by the runs that went on from them.
- `names.txt`: the public names of every module.
"""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn

import lightning_ff
from lightning_ff import CosineToEnd, ForwardForward, GreedySchedule, HybridImages, LinearReadout, Unlabelled
from lightning_ff.cli import main
from lightning_ff.data import Digits

HERE = Path(__file__).parent
LINE = """
fit --trainer.accelerator cpu --trainer.max_epochs 1 --trainer.log_every_n_steps 1 --trainer.enable_progress_bar false
--trainer.callbacks+=WindowSchedule --trainer.callbacks.windows [[[0,2]],[[1,3]]]
--trainer.callbacks+=lightning_ff.callbacks.summary.BlockSummary
--model ForwardForward --model.widths [8,6] --model.readout SoftmaxReadout
--model.negatives lightning_ff.hybrid.HybridImages --model.negatives.blurs 2
--model.optimizer torch.optim.SGD --model.optimizer.lr 0.05
--model.scheduler lightning_ff.optim.CosineToEnd --model.scheduler.flat 0.25 --model.scheduler_interval step
--data Digits --data.batch_size 25 --data.train_size 10
"""


def scores(model: nn.Module) -> list[float]:
    """Class scores of a few digits of the test set, one after another."""
    data = Digits()
    data.setup("test")
    with torch.no_grad():
        return model(next(iter(data.test_dataloader())).image[:4]).flatten().tolist()


def fit(epochs: int, ckpt_path: Path | None = None) -> tuple[Trainer, ForwardForward]:
    """The run from Python, or its continuation."""
    seed_everything(0)
    model = ForwardForward(
        10,
        (1, 8, 8),
        widths=[8, 6],
        labels=Unlabelled(),
        readout=LinearReadout(),
        negatives=HybridImages(blurs=2),
        scheduler=partial(CosineToEnd, flat=0.25),
        lr_decay=0.5,
    )
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing"), False)
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, log_every_n_steps=1, callbacks=[GreedySchedule(epochs=[1, 2])], **quiet
    )
    trainer.fit(model, Digits(batch_size=25, train_size=10), ckpt_path=ckpt_path)
    return trainer, model


def resume(name: str) -> ForwardForward:
    """The run of one of the checkpoints, gone on with for an epoch."""
    if name == "python":
        return fit(2, HERE / "python.ckpt")[1]
    given = [f"--config={HERE / 'config.yaml'}", f"--ckpt_path={HERE / 'line.ckpt'}", "--trainer.max_epochs=2"]
    return main(["fit", *given]).model


def names() -> list[str]:
    """Dotted names of the classes and functions that public modules define, and of what their `__all__` lists."""
    found = [f"lightning_ff.{name}" for name in lightning_ff.__all__]
    for info in pkgutil.walk_packages(lightning_ff.__path__, "lightning_ff."):
        if "._" in info.name:
            continue
        module = import_module(info.name)
        own = [n for n, v in inspect.getmembers(module) if getattr(v, "__module__", "") == info.name]
        public = {n for n in own if not n.startswith("_") and callable(getattr(module, n))}
        found += [f"{info.name}.{name}" for name in sorted(public.union(getattr(module, "__all__", ())))]
    return found


def make() -> None:
    """Write all files."""
    (HERE / "names.txt").write_text("\n".join(names()) + "\n")
    subprocess.run([sys.executable, "-m", "lightning_ff", *LINE.split()], check=True)
    (run,) = Path("logs").glob("*/version_0")
    shutil.copy(run / "config.yaml", HERE)
    shutil.copy(run / "checkpoints/last.ckpt", HERE / "line.ckpt")
    trainer, model = fit(1)
    trainer.save_checkpoint(HERE / "python.ckpt")
    torch.save(model.deploy(), HERE / "network.pt")
    torch.save(HybridImages(seed=3, blurs=2), HERE / "sampler.pt")
    found = {
        name: {
            "loaded": scores(ForwardForward.load_from_checkpoint(HERE / f"{name}.ckpt")),
            "resumed": scores(resume(name)),
        }
        for name in ("line", "python")
    }
    (HERE / "scores.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    os.chdir(tempfile.mkdtemp())
    make()
