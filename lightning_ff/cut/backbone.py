"""The network that a method cuts into blocks: a torchvision model by name or any module, with initial weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ff.blocks.measure import example
from lightning_ff.blocks.partition_checks import check_uncompiled
from lightning_ff.blocks.tracing import untouched
from lightning_ff.learner.resume import check_file
from lightning_ff.validate import check_type

_OLD_DENSE = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # names in torchvision's published files
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")  # torchvision's second classifiers, which inception and googlenet have
_WITH_AUXILIARY = ("googlenet", "inception_v3")
_IN_LEARNER = re.compile(r"network\.blocks\.\d+\.layers\.(.+)")


Classifier = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def backbone(
    model: str | nn.Module, num_classes: int, input_shape: Sequence[int], weights: str | None = None
) -> nn.Module:
    """A network with a classifier of `num_classes`, in train mode, and its weights loaded.

    Args:
        model: Name of a classification model of torchvision, such as "resnet18", or any module. By name, inception_v3
            and googlenet are built without their auxiliary classifiers.
        num_classes: Number of classes of a torchvision model.
        input_shape: Shape of one input, without the batch axis.
        weights: Name of torchvision's weights ("DEFAULT", "IMAGENET1K_V1"; only with a name), or a file: a
            `state_dict`, or a checkpoint of a learner of this package. A classifier that is missing there, or has
            another number of classes, keeps its random initialisation; one with the same number is loaded too. A
            prefix of all names that wrappers have added, such as "module." or "_orig_mod.", is left out.

    Raises:
        TypeError: `model` is neither a name nor a module.
        ValueError: torchvision has no such model or weights, or the file is of another network.
        FileNotFoundError: there is no such file.
    """
    check_type("model", model, (str, nn.Module), 'give a name of torchvision, such as "resnet18", or a module')
    made = _named(model, num_classes) if isinstance(model, str) else model
    check_uncompiled(made)
    if weights is not None:
        check_type("weights", weights, str, "give the name of torchvision's weights, or of a file")
        load(made, _state(model, weights), weights, input_shape)
    return made.train()


def _named(name: str, num_classes: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"model={name!r} is no classification model of torchvision: choose one of {', '.join(known)}")
    aux: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in _WITH_AUXILIARY else {}
    return models.get_model(name, weights=None, num_classes=num_classes, **aux)


def _state(model: str | nn.Module, weights: str) -> dict[str, Tensor]:
    if isinstance(model, str) and not Path(weights).exists():
        from torchvision import models

        known = {entry.name: entry for entry in models.get_model_weights(model)}
        known["DEFAULT"] = known[models.get_model_weights(model).DEFAULT.name]
        if weights in known:
            return dict(known[weights].get_state_dict(progress=False, check_hash=True))
        raise FileNotFoundError(f"weights={weights!r} is neither a file nor one of {', '.join(known)}")
    if not Path(weights).is_file():
        raise FileNotFoundError(f"weights={weights!r}: there is no such file")
    state = _read(weights)
    own = {m[1]: value for key, value in state.items() if (m := _IN_LEARNER.fullmatch(key))}
    return {_OLD_DENSE.sub(r"\1\2", key): value for key, value in (own or state).items()}


def _read(weights: str) -> dict[str, Tensor]:
    """The `state_dict` in a file, in torch's current or legacy format."""
    with Path(weights).open("rb") as file:
        if file.read(2) == b"PK":
            check_file(weights, "weights")
    try:
        found = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"weights={weights!r} cannot be read as a state_dict ({type(error).__name__}): save model.state_dict()"
        ) from error
    state = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights={weights!r} holds a {type(state).__name__}, no state_dict: save model.state_dict()")
    return state


def classifier(model: nn.Module, input_shape: Sequence[int]) -> str:
    """Name of the classifier: the last linear layer or convolution to run.

    Raises:
        ValueError: there is none, or the model does not take an input of `input_shape`.
    """
    executed: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: executed.append(module))
        for module in model.modules()
        if isinstance(module, Classifier)
    ]
    try:
        with untouched(model), torch.no_grad():
            model.eval()
            model(example(model, input_shape))
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"input_shape={tuple(input_shape)} does not fit {type(model).__name__}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if not executed:
        raise ValueError(f"model={type(model).__name__} has no linear layer or convolution to be its classifier")
    return next(name for name, module in model.named_modules() if module is executed[-1])


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without what wrappers put before every name ("module.", "_orig_mod.", "model."), if they then fit."""
    inner = state
    while len({key.partition(".")[0] for key in inner}) == 1 and not own.keys() & inner.keys():
        inner = {key.partition(".")[2]: value for key, value in inner.items()}
    return inner if own.keys() & inner.keys() else state


def load(model: nn.Module, state: dict[str, Tensor], source: str, input_shape: Sequence[int]) -> None:
    """Load weights, except those of a classifier that is missing or has another number of classes."""
    if getattr(model, "aux_logits", None) is False:
        state = {key: value for key, value in state.items() if not key.startswith(_AUXILIARY)}
    own = model.state_dict()
    state = _without_prefix(state, own)
    mismatched = [key for key, value in state.items() if key in own and own[key].shape != value.shape]
    missing = [key for key in own if key not in state]
    if mismatched or missing:
        head = f"{classifier(model, input_shape)}."
        if all(key.startswith(head) for key in (*mismatched, *missing)):
            state = {key: value for key, value in state.items() if key not in mismatched}
            mismatched, missing = [], []
    if unexpected := [key for key in state if key not in own]:
        raise ValueError(
            f"weights={source!r} are of another network than {type(model).__name__}, which has no {unexpected[0]}"
        )
    if mismatched or missing:
        wrong = f"{mismatched[0]} has another shape" if mismatched else f"{missing[0]} is not in it"
        raise ValueError(f"weights={source!r} are of another network than {type(model).__name__}: {wrong}")
    model.load_state_dict(state, strict=False)
