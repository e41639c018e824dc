"""Errors of the command line in a sentence or two, with names that are near."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from typing import Any, NoReturn

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_BASES = (nn.Module, Callback, LightningDataModule, Logger, Optimizer, LRScheduler)
_OWN = "a class of your own is named with its module, as my_module.MyClass, and found with PYTHONPATH=."
_TYPES = {"Sequence": "list", "Iterable": "list", "int": "whole number", "float": "number", "bool": "true or false"}


class Parser(LightningArgumentParser):
    """Prints what is wrong, without the usage, which `--help` prints."""

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help, without lists of all modules of torch."""
        listed = re.compile(r",\s+known\s+subclasses:\s+torch\.nn\.Module,[^()]*\)")
        return listed.sub(")", str(super().format_help(*args, **kwargs)))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print an error and exit with code 2; inner parsers, whose errors lead to other attempts, raise as they do."""
        if not self.exit_on_error:
            super().error(message, ex)
        print(f"{self.prog.split(' [')[0]}: error: {explain(message)}", file=sys.stderr)
        raise SystemExit(2)


def explain(message: str) -> str:
    """What is wrong, from a message of the parser."""
    keys = dict.fromkeys(re.findall(r'Parser key "([^"]+)"', message))
    key = f"--{'.'.join(keys)}"
    given = re.findall(r"Given value: (.+)", message)
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        classes = re.findall(r"class_path '([^']+)'", message)
        name = classes[-1].rpartition(".")[2] if classes else "it"
        near = _near(found[1], _arguments(classes[-1]) if classes else ())
        return f"{key}.{found[1]}: {name} has no argument {found[1]!r}{near}"
    if found := re.search(r"No module named '([\w.]+)'", message):
        return f"{key}: there is no module {found[1]!r}; {_OWN}"
    if found := re.search(r"Multiple subclasses with name (\w+)\. Give the full class path .*?: (.+)\.\n", message):
        return f"{key}={found[1]}: there are several such classes, choose one of {found[2]}"
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        return f"{key}={found[1]}: there is no class {found[1]!r}{_near(found[1], _classes())}; {_OWN}"
    if found := re.search(r"Expected a typing.Literal\[(.+?)\]\. Got value: (.+)", message):
        choices = re.findall(r"'([^']*)'", found[1])
        return f"{key}={found[2]}: choose one of {', '.join(choices)}{_near(found[2], choices)}"
    if found := re.search(r"invalid choice: '([^']*)' \(choose from (.+)\)", message):
        choices = re.findall(r"\w+", found[2])
        return f"{found[1]!r} is no command{_near(found[1], choices)}: choose one of {', '.join(choices)}"
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        names = [f"--trainer.{name}" for name in inspect.signature(Trainer).parameters]
        return f"there is no option {found[1]}{_near(found[1].partition('=')[0], names)}"
    kinds = [kind.rpartition(".")[2] for kind in re.findall(r"Expected a <class '([\w.]+)'>", message)]
    kinds = [_TYPES.get(kind, kind) for kind in kinds if kind not in ("NoneType", "Namespace")]
    if keys and kinds and given:
        value = re.sub(r"NestedArg\(key=.*, val='(.*)'\)", r"\1", given[0])
        return f"{key}={value}: give a {' or a '.join(dict.fromkeys(kinds))}"
    lines = [
        re.sub(r'^Parser key "([^"]+)": ', r"--\1: ", line.strip()) for line in message.splitlines() if line.strip()
    ]
    return "\n".join(lines[:3])


def _near(name: str, names: Iterable[str]) -> str:
    """A question with the nearest names, if there are any."""
    lower = {each.rpartition(".")[2].lower(): each for each in names} if "--" not in name else {n: n for n in names}
    word = name if "--" in name else name.rpartition(".")[2].lower()
    found = [lower[each] for each in difflib.get_close_matches(word, lower, n=2, cutoff=0.65)]
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def _classes() -> set[str]:
    """Names of all classes that are imported and may be given as parts, callbacks, loggers, data or optimizers."""
    found: set[str] = set()
    open_ = list[Any](_BASES)
    while open_:
        for each in open_.pop().__subclasses__():
            if each.__name__ not in found and not each.__name__.startswith("_"):
                found.add(each.__name__)
                open_.append(each)
    return found


def _arguments(class_path: str) -> set[str]:
    """Names of the arguments of a class, those of its bases included."""
    module, _, name = class_path.rpartition(".")
    found = getattr(import_module(module), name)
    bases = found.__mro__ if inspect.isclass(found) else (found,)
    inits = [
        vars(base).get("__init__", base) if inspect.isclass(base) else base for base in bases if base is not object
    ]
    return {name for init in inits for name in inspect.signature(init).parameters} - {"self", "args", "kwargs"}


def in_one_line(error: Exception) -> str | None:
    """The message of a plain mistake: an error that this package or Lightning's set-up raises; None for others."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    ours = str(frame.f_globals.get("__name__", "")).startswith("lightning_ff")
    if isinstance(error, (FileNotFoundError, MisconfigurationException)) or (
        ours and isinstance(error, (ValueError, TypeError, RuntimeError))
    ):
        return f"{type(error).__name__}: {error}"
    return None
