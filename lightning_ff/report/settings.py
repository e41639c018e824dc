"""A run's configuration as flat settings: which of them distinguish configurations, and their formatting."""

from __future__ import annotations

from itertools import count
from typing import Any

from lightning_ff.report.numbers import DASH
from lightning_ff.report.runs import Run

ABSENT = object()
_NOT_COMPARED = {"checkpoint", "ckpt_path", "data.download", "data.root", "last", "model._instantiator", "predictions"}
_NOT_COMPARED |= {"report", "test_after_fit", "verbose", "weights_only"}
_NOT_COMPARED |= {f"trainer.{key}" for key in ("default_root_dir", "enable_checkpointing", "enable_model_summary")}
_NOT_COMPARED |= {f"trainer.{key}" for key in ("enable_progress_bar", "log_every_n_steps", "logger")}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Settings by dotted name; a class and its arguments are one level.

    Example::

        >>> flat({"loss": {"class_path": "lightning_ff.SymBa", "init_args": {"alpha": 4.0}}, "widths": [8, 8]})
        {'loss': 'SymBa', 'loss.alpha': 4.0, 'widths': [8, 8]}
    """
    if (kind := _class_name(value)) is not None:
        arguments = value.get("init_args")
        return {name: kind, **(flat(arguments, name) if isinstance(arguments, dict) and arguments else {})}
    inner = value if isinstance(value, dict) else {}
    if isinstance(value, list) and any(_class_name(each) is not None for each in value):
        for each in value:  # by the names of their classes, numbered from the second of a class on
            kind = _class_name(each) or "item"
            inner[kind if kind not in inner else next(n for i in count(2) if (n := f"{kind}#{i}") not in inner)] = each
    if inner:
        parts = [flat(each, f"{name}.{part}".strip(".")) for part, each in inner.items()]
        return {key: each for part in parts for key, each in part.items()}
    return {name: value} if name else {}


def _class_name(value: Any) -> str | None:
    return str(value["class_path"]).rpartition(".")[2] if isinstance(value, dict) and "class_path" in value else None


def is_seed(name: str) -> bool:
    """Whether a setting is a seed."""
    last = name.rpartition(".")[2]
    return last in ("seed", "seed_everything") or last.endswith("_seed")


def compared(name: str) -> bool:
    """Whether a setting distinguishes configurations: not a seed, a path or an option of output."""
    outer = {name[:i] for i, letter in enumerate(name) if letter == "."} | {name}
    return not is_seed(name) and not outer & _NOT_COMPARED


def seeds(run: Run) -> dict[str, Any]:
    """Every seed of a run."""
    return {name: value for name, value in settings_of(run).items() if is_seed(name)}


def settings_of(run: Run) -> dict[str, Any]:
    """The configuration, or the part of it that a run from Python has saved."""
    if run.config or not run.hparams:
        return flat(run.config)
    arguments = dict(run.hparams)
    path = arguments.pop("learner", None)  # none in runs of an earlier release
    return flat({"model": arguments if path is None else {"class_path": path, "init_args": arguments}})


def written(value: Any) -> str:
    """A setting as YAML, a dash if missing."""
    if value is ABSENT or value is None:
        return DASH if value is ABSENT else "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
