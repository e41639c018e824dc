"""Which descriptions of parts in a file may be built: classes of the type that an argument takes, of known modules."""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_OURS = ("lightning_ff", "torch", "torchvision")
_PARTS = (nn.Module, Optimizer, LRScheduler)
# Functions that only compute, or make a module.
_FUNCTIONS = ("torch.nn.functional.", "lightning_ff.objectives.", "lightning_ff.blocks.", "lightning_ff.augment.")
_MAKERS = ("torchvision.models.", "lightning_ff.blocks.")
_PLACEHOLDER = "lightning_ff.spec.missing"  # it raises, and names what was not saved


class UntrustedCheckpoint(ValueError):
    """A checkpoint describes a part that is not built from a file."""


def check_descriptions(owner: type, arguments: Mapping[str, Any], trusted: Sequence[str] = ()) -> None:
    """Check every description in the arguments of a class that come from a file, before anything is built.

    Args:
        owner: The class that gets the arguments.
        arguments: Its arguments, with parts as `{"class_path": ..., "init_args": {...}}`.
        trusted: Modules, classes or functions that may be imported and called too, by their dotted names.

    Raises:
        UntrustedCheckpoint: a description names something else than a class of the type that the argument takes, or a
            module that is neither imported nor of this package, torch or torchvision.
    """
    for name, value in arguments.items():
        bases = tuple(_classes(_annotation(owner, name)))
        for path, given in _descriptions(value, bool(bases)):
            found = _resolve(name, path, trusted)
            _check_kind(name, path, found, bases or _PARTS, trusted)
            if inspect.isclass(found):
                for key in ("init_args", "dict_kwargs"):
                    check_descriptions(found, given.get(key) or {}, trusted)
            else:
                check_descriptions(nn.Module, given.get("init_args") or {}, trusted)


def check_class(path: str, base: type, trusted: Sequence[str] = ()) -> type:
    """The class of a learner that a checkpoint names, with the checks of `check_descriptions`."""
    found = _resolve("the learner", path, trusted)
    _check_kind("the learner", path, found, (base,), ())
    assert inspect.isclass(found)
    return found


def _descriptions(value: Any, takes_parts: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Class path and contents of the outermost descriptions in a value."""
    if isinstance(value, str):
        if takes_parts and "." in value and value.replace(".", "").replace("_", "").isalnum():
            yield value, {}  # jsonargparse reads it as a class path
    elif isinstance(value, Mapping) and "class_path" in value:
        yield str(value["class_path"]), value
    elif isinstance(value, (Mapping, list, tuple)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _descriptions(each, takes_parts)


def _resolve(name: str, path: str, trusted: Sequence[str]) -> Any:
    module, _, last = path.rpartition(".")
    if module.partition(".")[0] in _OURS or _is_trusted(path, trusted):
        try:
            return getattr(importlib.import_module(module), last)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"class_path={path!r} of {name} cannot be imported: {error}") from None
    if module not in sys.modules or not hasattr(sys.modules[module], last):
        raise UntrustedCheckpoint(
            f"class_path={path!r} of {name} in the checkpoint: {module} is not imported for a file; import it before, "
            f"or give trusted=[{module!r}] if you trust the file"
        )
    return getattr(sys.modules[module], last)


def _check_kind(name: str, path: str, found: Any, bases: tuple[type, ...], trusted: Sequence[str]) -> None:
    if inspect.isclass(found) and issubclass(found, bases):
        return
    if path == _PLACEHOLDER or (callable(found) and _is_trusted(path, trusted)):
        return
    if inspect.isroutine(found):
        makes_module = any(issubclass(nn.Module, base) or issubclass(base, nn.Module) for base in bases)
        home = f"{getattr(found, '__module__', '')}."
        if home.startswith(_FUNCTIONS) or (makes_module and home.startswith(_MAKERS)):
            return
    kinds = " or ".join(base.__name__ for base in bases)
    raise UntrustedCheckpoint(
        f"class_path={path!r} of {name} in the checkpoint is no class of type {kinds}: it is not called for a file; "
        f"give {name} again, or trusted=[{path!r}] if you trust the file"
    )


def _is_trusted(path: str, trusted: Sequence[str]) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in trusted)


def declared(owner: type, name: str) -> type | None:
    """The class, of one and its bases, whose constructor declares an argument."""
    inits = ((each, vars(each).get("__init__")) for each in owner.__mro__)
    return next((each for each, init in inits if init is not None and name in inspect.signature(init).parameters), None)


def _annotation(owner: type, name: str) -> Any:
    """Annotation of an argument in the constructors of a class and its bases."""
    if (home := declared(owner, name)) is None:
        return None
    try:
        return typing.get_type_hints(home.__init__).get(name)  # type: ignore[misc]
    except Exception:  # names that are imported for type checkers alone
        return None


def _classes(annotation: Any) -> Iterator[type]:
    """Types of parts in an annotation, such as that which a factory returns."""
    if inspect.isclass(annotation) and (issubclass(annotation, _PARTS) or is_dataclass(annotation)):
        yield annotation
    for each in typing.get_args(annotation):  # a list holds the arguments of a factory
        yield from _classes(each) if not isinstance(each, list) else ()
