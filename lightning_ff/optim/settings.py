"""Settings of optimizers and schedulers when a run is resumed: those of the checkpoint, or those of this run."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
from torch.optim.lr_scheduler import LRScheduler

# How a step is computed, not what it gives.
_IMPLEMENTATION = {"params", "name", "lr", "initial_lr", "fused", "foreach", "capturable", "differentiable"}
Groups = Sequence[dict[str, Any]]


def plain(value: Any) -> Any:
    """A value with plain numbers and strings in place of NumPy's and of enumerations, which no file could hold."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    if isinstance(value, np.generic):
        return value.item()
    return value.value if isinstance(value, Enum) else value


def check_kinds(ours: Mapping[str, str], saved: Mapping[str, str], what: str) -> None:
    """Check that a checkpoint has the state of the same classes, by the name of the block.

    Raises:
        ValueError: it does not.
    """
    for name, kind in ours.items():
        if (theirs := saved.get(name, kind)) != kind:
            raise ValueError(
                f"{what} of {name} is {kind}, and the checkpoint has the state of {theirs}: resume with {theirs}, or "
                "begin a new run from the weights (load_from_checkpoint)"
            )


def reconcile(
    own: Groups, loaded: Groups, rates: Sequence[float], saved_rates: Sequence[float], keep_own: bool
) -> list[str]:
    """Compare the settings of parameter groups with those of a checkpoint.

    Args:
        own: Groups before the checkpoint was loaded.
        loaded: The same groups with the values of the checkpoint.
        rates: Own learning rates, before any scheduler.
        saved_rates: Those of the checkpoint.
        keep_own: Set `loaded` to the own settings; the rate keeps what a scheduler has made of it, as a factor.

    Returns:
        The differences, as text.
    """
    found = []
    for ours, theirs, rate, saved_rate in zip(own, loaded, rates, saved_rates, strict=True):
        keys = [key for key in ours if key in theirs and key not in _IMPLEMENTATION and ours[key] != theirs[key]]
        found += [f"{theirs['name']} {key}={theirs[key]} (here {ours[key]})" for key in keys]
        if rate != saved_rate:
            found.append(f"{theirs['name']} lr={saved_rate:g} (here {rate:g})")
        if keep_own:
            theirs.update({key: ours[key] for key in keys})
            for key in {"lr", "initial_lr"} & theirs.keys() if rate != saved_rate else ():
                theirs[key] = theirs[key] * (rate / saved_rate) if saved_rate else rate
    return found


def settings_of(scheduler: LRScheduler) -> dict[str, Any]:
    """Arguments of a scheduler that it keeps, and its base rates."""
    names = [name for name in inspect.signature(type(scheduler)).parameters if name not in ("optimizer", "last_epoch")]
    values = vars(scheduler)
    return {name: values[name] for name in [*names, "base_lrs"] if name in values}


def warn_of(differences: Sequence[str]) -> None:
    """Warn of settings that come from the checkpoint."""
    if differences:
        warnings.warn(
            f"the resumed run has the settings of the checkpoint: {'; '.join(differences)}; begin a new run from the "
            "weights (load_from_checkpoint) for others",
            stacklevel=2,
        )
