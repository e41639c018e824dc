"""Helpers of the cases: images, learners, a quiet Trainer, and the results of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_ff import ForwardForward, ScalableForwardForward
from lightning_ff.data import Digits
from tests.goldens.found import Found, digest, kind
from tests.goldens.nets import CLASSES, SHAPE, Net

BATCH = 12
ADAM = partial(torch.optim.Adam, lr=0.01)
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
QUIET: dict[str, Any] = {
    **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False),
    "accelerator": "cpu",
    "max_epochs": 1,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 5,
}


def batches(steps: int = 12) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Batches of images, labels and the samples' index."""
    g = torch.Generator().manual_seed(1)
    x = torch.rand(steps * BATCH, *SHAPE, generator=g)
    y = torch.randint(CLASSES, (steps * BATCH,), generator=g)
    return list(zip(x.split(BATCH), y.split(BATCH), torch.arange(len(x)).split(BATCH), strict=True))


def loader(steps: int = 12) -> DataLoader[Any]:
    """The same batches in every epoch."""
    return DataLoader(batches(steps), batch_size=None)  # type: ignore[arg-type]


def digits(**arguments: Any) -> Digits:
    """80 digits in 5 batches for training, 40 for validation."""
    return Digits(**{"batch_size": 16, "eval_batch_size": 64, "val_size": 40, "train_size": 8, **arguments})


def pair(seed: int = 0, **arguments: Any) -> ForwardForward:
    """Three fully connected blocks in pair mode, the same weights each time."""
    seed_everything(seed, verbose=False)
    own = {"num_classes": CLASSES, "input_shape": SHAPE, "widths": [16, 12, 8], "optimizer": ADAM}
    return ForwardForward(**{**own, **arguments})


def of_digits(**arguments: Any) -> ForwardForward:
    """Two fully connected blocks for digits."""
    return pair(**{"num_classes": 10, "input_shape": (1, 8, 8), "widths": [16, 12], **arguments})


def conv(net: Callable[[], nn.Module] = Net, method: Any = ScalableForwardForward, **arguments: Any) -> LightningModule:
    """A small convolutional network in class mode, the same weights each time."""
    seed_everything(0, verbose=False)
    own = {"model": net(), "num_classes": CLASSES, "input_shape": SHAPE, "optimizer": SGD}
    return method(**{**own, **arguments})


class Steps(Callback):
    """Keeps the losses and rates of every batch, and the state of torch's random numbers at the end."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.rates: list[list[float]] = []
        self.random = torch.empty(0)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append({"all": float(outputs["loss"]), **{k: float(loss) for k, loss in outputs["losses"].items()}})
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.random = torch.get_rng_state()

    def series(self, first: int | None = None) -> dict[str, list[float | None]]:
        """Values of every loss by batch, None where a block has not learned; rates where they change."""
        kept = self.losses[:first]
        found = {name: [step.get(name) for step in kept] for name in dict.fromkeys(n for step in kept for n in step)}
        changes = any(rates != self.rates[0] for rates in self.rates)
        groups = zip(*self.rates[:first], strict=True)
        return found | ({f"rate/{i}": list(of_one) for i, of_one in enumerate(groups)} if changes else {})


class Save(Callback):
    """Saves a checkpoint after the third batch, in the middle of the first epoch."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if (trainer.current_epoch, trainer.fit_loop.batch_idx) == (0, 2):
            trainer.save_checkpoint("saved.ckpt")


def fit(
    model: LightningModule,
    *callbacks: Callback,
    data: Any = None,
    validate: Any = None,
    resume: Any = None,
    **flags: Any,
) -> Found:
    """Train; losses of all batches, what was measured, weights, random state, and the scores of some images."""
    steps = Steps()
    trainer = Trainer(**{**QUIET, "callbacks": [*callbacks, steps], **flags})
    trainer.fit(model, loader() if data is None else data, validate, ckpt_path=resume)
    return left(trainer, model, steps)


def left(trainer: Trainer, model: LightningModule, steps: Steps, first: int | None = None) -> Found:
    """Results of a run, with the losses of the first batches, or of all."""
    weights = dict(model.state_dict())
    series, measured = steps.series(first), {k: float(v) for k, v in trainer.callback_metrics.items()}
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        answer = model.eval()(torch.rand(5, *model.example_input_array.shape[1:], generator=g))  # type: ignore[union-attr]
    structure = {
        "batches": len(steps.losses),
        "series": sorted(series),
        "metrics": sorted(measured),
        "weights": {name: kind(value) for name, value in weights.items()},
    }
    digests = {name: digest(value) for name, value in weights.items()}
    ends = {"metrics": measured, "answer": digest(answer), "random": digest(steps.random)}
    return Found(structure, {"series": series, **ends, "weights": digests})
