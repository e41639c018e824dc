"""What may wait: steps until their block runs again, with the settings they are made with, and values for the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from lightning_ff._lightning import saves_between, step_hooked
from lightning_ff.learner import LocalLearner
from lightning_ff.negatives import NegativeSampler
from lightning_ff.optim import BlockSchedulers

_BETWEEN = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
_OF_CALLBACKS = (*_BETWEEN, "on_exception")
_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
_OF_LEARNER = (
    *_BETWEEN,
    *_TRANSFER,
    "training_step",
    "inputs",
    "sweep",
    "backward",
)
_FUSED = (SGD, Adam, AdamW)
_KNOWN = (
    "lightning_ff.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.core.",
    "lightning.pytorch.plugins.",
    "torch.optim.",
)
_LOOKS = "lightning.pytorch.callbacks.weight_averaging"

Settings = list[dict[str, Any]]


def unseen(trainer: Trainer, learner: LocalLearner) -> bool:
    """Whether nobody sees weights between two batches: nothing that acts with a batch or a step is of a user's own."""
    own: list[Any] = [getattr(each, hook) for each in trainer.callbacks for hook in _OF_CALLBACKS]  # type: ignore[attr-defined]
    own += [getattr(learner, hook) for hook in _OF_LEARNER]
    own += [getattr(trainer.datamodule, hook) for hook in _TRANSFER if trainer.datamodule is not None]  # type: ignore[attr-defined]
    if learner.negatives is not None:
        own += [type(each) for each in learner.negatives.modules() if isinstance(each, NegativeSampler)]
    own += [type(trainer.precision_plugin), *map(type, _schedulers(trainer))]
    modules = [str(getattr(each, "__module__", "")) for each in own]
    known = all(module.startswith(_KNOWN) and module != _LOOKS for module in modules)
    return known and not step_hooked(learner.facade)


def unlogged(trainer: Trainer, learner: LocalLearner) -> bool:
    """Whether nothing but loggers and progress bars goes by values of a log interval before the epoch ends."""
    every: Any = getattr(trainer, "val_check_interval", None)  # None: by the clock
    at_end = isinstance(every, float) and every == 1.0 and trainer.check_val_every_n_epoch is not None
    saves = any(saves_between(callback) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    meets = any(getattr(callback, "meets", False) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    own = not learner.forward.__module__.startswith(_KNOWN)
    validates = trainer.enable_validation and not at_end
    return not (validates or saves or meets or own) and unseen(trainer, learner)


def ends(trainer: Trainer) -> bool:
    """Whether no batch of this epoch comes after this one, which has made its step."""
    return trainer.is_last_batch or trainer.global_step == trainer.max_steps


def _schedulers(trainer: Trainer) -> list[Any]:
    """Those that step with the batches."""
    found: list[Any] = [config.scheduler for config in trainer.lr_scheduler_configs if config.interval == "step"]
    return [each for of in found for each in (of.inner.values() if isinstance(of, BlockSchedulers) else [of])]


def settings(optimizer: Optimizer) -> Settings | None:
    """Learning rates and what else a step goes by, of each group; None where a tensor may change unnoticed."""
    held = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return None if any(isinstance(value, Tensor) for group in held for value in group.values()) else held


def only_reads(optimizer: Optimizer) -> bool:
    """Whether a step leaves gradients as they are, as torch's fused kernels do where nothing stands before them."""
    fused = all(group.get("fused") for group in optimizer.param_groups)
    step = vars(optimizer).get("step")  # torch's schedulers put themselves there
    own = step is not None and getattr(step, "__wrapped__", None) is not type(optimizer).step
    return type(optimizer) in _FUSED and fused and not own and not step_hooked(optimizer)


@contextmanager
def with_settings(optimizer: Optimizer, then: Settings) -> Iterator[None]:
    """Go by settings of earlier; what a scheduler has changed since counts again afterwards."""
    now = [
        {key: group[key] for key, value in was.items() if group[key] != value}
        for group, was in zip(optimizer.param_groups, then, strict=True)
    ]
    for group, was, changed in zip(optimizer.param_groups, then, now, strict=True):
        group.update({key: was[key] for key in changed})
    try:
        yield
    finally:
        for group, changed in zip(optimizer.param_groups, now, strict=True):
            group.update(changed)
