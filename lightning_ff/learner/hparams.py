"""The arguments of a learner as plain data, so that checkpoints load weights-only."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_ff.spec import NotDescribable, describe, is_spec, part

_MISSING = "lightning_ff.spec.missing"


def remember(module: LightningModule, ignore: list[str]) -> set[str]:
    """Save the arguments of the constructor that calls this, as plain data.

    Args:
        module: The module under construction.
        ignore: Arguments that are not saved.

    Returns:
        Names of arguments that a subclass sets itself: it does not take them when a checkpoint is loaded.
    """
    frame = inspect.currentframe()
    assert frame is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`.*")
        module.save_hyperparameters(ignore=ignore, frame=frame.f_back)
        if "_instantiator" in module.hparams:  # from the command line every argument is plain data
            module.save_hyperparameters(frame=frame.f_back)
    plain = {key: _plain(key, value) for key, value in module.hparams.items()}
    if plain:  # `hparams_initial` is for loggers, `hparams` for checkpoints
        path = f"{type(module).__module__}.{type(module).__qualname__}"
        module.save_hyperparameters({"learner": path, **_readable(plain)}, frame=frame.f_back)
        module.hparams.clear()
        module.hparams.update(plain)
    given = plain.keys() if "_instantiator" in plain else _given(module, frame.f_back)
    return {key for key in plain if key not in given}


def remember_instead(module: LightningModule, name: str, value: Any, fixed: set[str]) -> None:
    """Replace the saved value of an argument of the constructor, if it has that argument."""
    if name in module.hparams and name not in fixed:
        module.hparams[name] = _plain(name, value)


def _given(module: LightningModule, frame: FrameType | None) -> set[str]:
    """Names of the arguments of the outermost constructor, whose frame is `frame` or one around it."""
    names: set[str] = set()
    while frame is not None and frame.f_code.co_name == "__init__":
        inside = inspect.getargvalues(frame)
        if not inside.args or inside.locals[inside.args[0]] is not module:
            break
        names = {*inside.args[1:], *(inside.locals[inside.keywords] if inside.keywords else ())}
        frame = frame.f_back
    return names


def _check_rebuilds(description: Any, model: nn.Module) -> None:
    """Check that the description of a network rebuilds it; the network may have been changed after it was built."""
    with torch.random.fork_rng(devices=[]):
        try:
            rebuilt = repr(part(description))
        except Exception as error:
            raise NotDescribable(f"{type(model).__name__} cannot be rebuilt ({error})") from None
    if rebuilt != repr(model):
        raise NotDescribable(f"{type(model).__name__} was changed after it was built")


def _plain(name: str, value: Any) -> Any:
    """Plain data for an argument; one that cannot be described becomes a placeholder that raises when it is built."""
    if isinstance(value, Mapping) and not is_spec(value):
        return {str(key): _plain(f"{name}[{key!r}]", entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(f"{name}[{i}]", entry) for i, entry in enumerate(value)]
    try:
        description = describe(value)
        if name == "model" and isinstance(value, nn.Module):
            _check_rebuilds(description, value)
        return description
    except NotDescribable as error:
        kind = getattr(value, "__name__", type(value).__name__)
        return {"class_path": _MISSING, "init_args": {"what": f"{name}: {error}"}, "kind": kind}


def _readable(value: Any) -> Any:
    """Plain data with the name of its type or function for a part that cannot be described."""
    if isinstance(value, Mapping):
        missing = value.get("class_path") == _MISSING
        return value.get("kind") if missing else {key: _readable(entry) for key, entry in value.items()}
    return [_readable(entry) for entry in value] if isinstance(value, list) else value
