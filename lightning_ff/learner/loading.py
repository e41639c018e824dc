"""Checks before a learner is built from a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule

from lightning_ff.learner.resume import check_file, is_local_path, not_plain
from lightning_ff.spec import is_spec, part
from lightning_ff.trust import UntrustedCheckpoint, check_class, check_descriptions, declared

_INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"  # of checkpoints of the command line
_SIGNATURE = inspect.signature(LightningModule.load_from_checkpoint)


def prepare(
    learner: type[LightningModule], path: Any, args: Sequence[Any], kwargs: Mapping[str, Any], trusted: Sequence[str]
) -> dict[str, Any]:
    """Check a file before it is loaded; returns the arguments for Lightning, which then reads plain data only.

    Raises:
        CorruptCheckpoint: the file is damaged.
        UntrustedCheckpoint: it describes a part that is not trusted, or holds more than plain data. Neither is checked
            with `weights_only=False`, by which the user trusts the file as a whole.
    """
    check_file(path)
    arguments = {**_SIGNATURE.bind_partial(path, *args).arguments, **kwargs}
    if arguments.get("weights_only") is False:
        return dict(kwargs)
    saved = read_plain(path)
    described = saved.get(learner.CHECKPOINT_HYPER_PARAMS_KEY) or {}
    check_arguments(learner, described, trusted)
    made = {**_of_subclass(learner, described, kwargs), **kwargs}
    return {**made, "weights_only": True} if "weights_only" in _SIGNATURE.parameters else made


def _of_subclass(learner: type, described: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Parts that are arguments of a user's subclass, which gets what it was given and no description."""
    if "_class_path" in described:
        return {}
    homes = {name: declared(learner, name) for name, value in described.items() if is_spec(value) and name not in given}
    theirs = [
        name for name, home in homes.items() if home is not None and not home.__module__.startswith("lightning_ff.")
    ]
    return {name: part(described[name]) for name in theirs}


def check_arguments(learner: type, saved: Mapping[str, Any], trusted: Sequence[str]) -> None:
    """Check that the arguments in a checkpoint describe nothing but parts that are built from a file.

    Raises:
        UntrustedCheckpoint: they do.
    """
    arguments = dict(saved)
    instantiator, class_path = arguments.pop("_instantiator", None), arguments.pop("_class_path", None)
    if instantiator not in (None, _INSTANTIATOR):
        raise UntrustedCheckpoint(f"_instantiator={instantiator!r} in the checkpoint: it is not called for a file")
    owner = learner if class_path is None else check_class(str(class_path), learner, trusted)
    check_descriptions(owner, arguments, trusted)


def read_plain(path: Any) -> dict[str, Any]:
    """The plain data of a checkpoint, without the values of tensors where possible; nothing in the file is called."""
    try:
        if hasattr(path, "read"):
            position = path.tell()
            read = torch.load(path, map_location="cpu", weights_only=True)
            path.seek(position)
        elif str(path).startswith(("http://", "https://")):
            read = torch.hub.load_state_dict_from_url(str(path), map_location="cpu", weights_only=True)
        elif is_local_path(path):
            read = torch.load(path, map_location="meta", weights_only=True)
        else:
            with get_filesystem(path).open(str(path), "rb") as file:
                read = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise not_plain(path, error) from None
    return dict(read)
