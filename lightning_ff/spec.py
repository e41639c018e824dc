"""Parts as plain data, `{"class_path": ..., "init_args": {...}}`, so that checkpoints load weights-only.

LightningCLI writes the same form. A part keeps every argument of its `__init__` as an attribute of the same name.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class NotDescribable(TypeError):
    """An object cannot be turned into plain data; it has to be given again when a checkpoint is loaded."""


def describe(value: Any) -> Any:
    """Turn a part, a class, a function, a `functools.partial` or a collection of them into plain data.

    Raises:
        NotDescribable: the value is none of these, or does not keep an argument as an attribute.

    Example::

        >>> from lightning_ff.objectives import SymBa
        >>> describe(SymBa(alpha=2.0))
        {'class_path': 'lightning_ff.objectives.losses.SymBa', 'init_args': {'alpha': 2.0}}
        >>> import torch
        >>> describe(partial(torch.optim.Adam, lr=0.1))
        {'class_path': 'torch.optim.adam.Adam', 'init_args': {'lr': 0.1}}
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Real):  # also NumPy's numbers, which a weights-only checkpoint cannot hold
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Enum):
        return describe(value.value)
    if isinstance(value, torch.dtype):
        raise NotDescribable(f"{value} is no plain data")
    if isinstance(value, Mapping):
        return {str(key): describe(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(entry) for entry in value]
    if isinstance(value, partial):
        if value.args:
            raise NotDescribable(f"{value}: a partial with positional arguments; name them")
        return {"class_path": _path(value.func), "init_args": describe(value.keywords)}
    if inspect.isclass(value) or inspect.isroutine(value):
        return {"class_path": _path(value), "init_args": {}}
    return {"class_path": _path(type(value)), "init_args": _arguments(value)}


def _path(value: Callable[..., Any]) -> str:
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    if not module or not name or "." in name or "<" in name or module == "__main__":
        raise NotDescribable(f"{value} cannot be imported by name: put it at the top level of a module")
    return f"{module}.{name}"


def _arguments(value: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if type(value).__init__ is nn.Module.__init__:  # its signature is (*args, **kwargs), but it accepts none
        return arguments
    try:
        signature = inspect.signature(type(value))
    except ValueError as error:
        raise NotDescribable(f"{type(value).__name__}: {error}") from None
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or not hasattr(value, name):
            raise NotDescribable(f"{type(value).__name__} does not keep its argument {name!r} as an attribute")
        entry = getattr(value, name)
        if inspect.isclass(entry):
            raise NotDescribable(f"{type(value).__name__}({name}={entry}): a class as an argument of a part")
        arguments[name] = describe(list(entry) if isinstance(entry, nn.ModuleList) else entry)
    return arguments


def is_spec(value: Any) -> bool:
    """Whether a value is a part in its plain form."""
    return isinstance(value, Mapping) and "class_path" in value


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"class_path={path!r} cannot be imported: {error}") from None


def part(value: Any) -> Any:
    """A part from its plain form, with nested parts; anything else is returned unchanged."""
    if isinstance(value, list):
        return [part(entry) for entry in value]
    return _load(value["class_path"])(**_arguments_of(value)) if is_spec(value) else value


def factory(value: Any) -> Any:
    """A factory, such as of optimizers, from its plain form; a callable is returned unchanged."""
    return partial(_load(value["class_path"]), **_arguments_of(value)) if is_spec(value) else value


def _arguments_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _argument(entry) for key, entry in spec.get("init_args", {}).items()}


def _argument(value: Any) -> Any:
    """An argument of a part or factory: a nested part is built, a nested function is not called."""
    if isinstance(value, list):
        return [_argument(entry) for entry in value]
    if is_spec(value):
        loaded = _load(value["class_path"])
        arguments = _arguments_of(value)
        makes_later = inspect.isclass(loaded) and issubclass(loaded, (Optimizer, LRScheduler))  # a factory in a part
        if inspect.isroutine(loaded) or makes_later:
            return partial(loaded, **arguments) if arguments else loaded
        return loaded(**arguments)
    return {key: _argument(entry) for key, entry in value.items()} if isinstance(value, Mapping) else value


def missing(*_: Any, what: str) -> Any:
    """Placeholder in a checkpoint for a part that could not be described."""
    raise ValueError(f"this part was not saved in the checkpoint ({what}): give it again to load_from_checkpoint")
