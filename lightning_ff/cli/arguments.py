"""Arguments of the model on the command line, put together with those in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_ff.learner import LocalLearner
from lightning_ff.learner.loading import check_arguments, read_plain
from lightning_ff.learner.resume import check_file

LINKED = ("num_classes", "input_shape")
"""Arguments that come from the data."""
_PLACEHOLDER = "lightning_ff.spec.missing"


def saved_arguments(file: Path, class_path: str, trusted: Sequence[str]) -> dict[str, Any]:
    """Arguments of the learner in a checkpoint.

    Args:
        file: The checkpoint.
        class_path: The learner on the command line.
        trusted: See :meth:`~lightning_ff.LocalLearner.load_from_checkpoint`.

    Raises:
        CorruptCheckpoint: the file is damaged.
        UntrustedCheckpoint: it describes a part that is not trusted.
        ValueError: it is of another learner.
    """
    check_file(file)
    saved = dict(read_plain(file).get("hyper_parameters") or {})
    check_arguments(LocalLearner, saved, trusted)
    saved.pop("_instantiator", None)
    theirs = str(saved.pop("_class_path", class_path))
    if theirs.rpartition(".")[2] != class_path.rpartition(".")[2]:
        raise ValueError(f"ckpt_path={str(file)!r} is of {theirs}, and model={class_path}: give one of them")
    return {name: value for name, value in saved.items() if name not in LINKED and not _lacks(value)}


def _lacks(value: Any) -> bool:
    """Whether a value has a part that could not be saved."""
    if isinstance(value, Mapping):
        return value.get("class_path") == _PLACEHOLDER or any(map(_lacks, value.values()))
    return isinstance(value, list) and any(map(_lacks, value))


def given_names(args: Any, files: Sequence[Path]) -> list[list[str]]:
    """Arguments of the model that are given on the command line or by files, each as the parts of its dotted name."""
    names = [[name] for file in files for name in _of_model(yaml.safe_load(file.read_text(encoding="utf-8")))]
    if isinstance(args, Mapping):
        names += [[name] for name in _of_model(args)]
    elif isinstance(args, Sequence):
        words = [str(word).partition("=")[0] for word in args]
        dotted = [word.removeprefix("--model.").split(".") for word in words if word.startswith("--model.")]
        names += [[part for part in parts if part != "init_args"] for parts in dotted]
    appended = [[name.rstrip("+"), *inner] for name, *inner in names]  # `--model.terms+` appends
    return [name for name in appended if name != ["class_path"]]


def _of_model(config: Any) -> Iterator[str]:
    """Names of the model's arguments in a configuration, of one subcommand or of all."""
    if not isinstance(config, Mapping):
        return
    model = config.get("model")
    if isinstance(model, Mapping):
        yield from (name for name in model if name not in ("class_path", "init_args"))
        yield from model.get("init_args") or {}
    for command in ("fit", "validate", "test", "predict"):
        yield from _of_model(config.get(command))


def filled(ours: Mapping[str, Any], saved: Mapping[str, Any], given: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Arguments of the model: what is given counts, and the checkpoint fills the rest.

    Args:
        ours: All arguments by the command line, with defaults.
        saved: Those in the checkpoint.
        given: See :func:`given_names`.
    """
    made = {**ours, **saved}
    whole = {name for name, *inner in given if not inner or "class_path" in inner}
    for name, *inner in given:
        part = made.get(name)
        if name in whole or not isinstance(part, Mapping):
            made[name] = ours.get(name)
        else:
            made[name] = _with(part, inner, ours.get(name))
    return {name: value for name, value in made.items() if name in ours}


def _with(part: Mapping[str, Any], names: Sequence[str], ours: Any) -> dict[str, Any]:
    """A part of a checkpoint, with one argument of ours."""
    (name, *inner), described = names, "class_path" in part
    arguments = dict(part.get("init_args") or {}) if described else dict(part)
    value = (ours.get("init_args") or ours).get(name) if isinstance(ours, Mapping) else ours
    within = arguments.get(name)
    arguments[name] = _with(within, inner, value) if inner and isinstance(within, Mapping) else value
    return {**part, "init_args": arguments} if described else arguments
