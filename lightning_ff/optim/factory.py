"""Creation of one optimizer per block from factories."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from lightning_ff.objectives import Goodness
from lightning_ff.optim.block_optimizers import BlockOptimizers
from lightning_ff.optim.settings import plain

Factory = Callable[[Iterable[nn.Parameter]], Optimizer]

_FUSED_DEVICES = ("cuda", "mps", "xpu")
# They have a kernel on all of these devices and on the CPU, and create their state in the first step.
_FUSED_OPTIMIZERS = (Adam, AdamW, SGD)


def make_optimizers(
    owners: Mapping[str, nn.Module],
    default: Factory,
    by_name: Mapping[str, Factory] | None = None,
    lr: float | None = None,
    lr_decay: float = 1.0,
) -> BlockOptimizers:
    """One optimizer for each module that has trainable parameters, behind one facade.

    Without trainable parameters there is none, if a goodness is fitted.

    Args:
        owners: Blocks or segments of blocks, and a readout, by name, in order, see `LocalNetwork.owners`.
        default: Factory of an optimizer, called with a module's parameters.
        by_name: Other factories by name; wildcards are allowed, and the last match is used.
        lr: Learning rate that replaces the one of `default`.
        lr_decay: The learning rate of block k is multiplied by `lr_decay**k`; k counts the owners.

    Raises:
        ValueError: nothing is trainable or fitted, a name matches none of the owners, or an optimizer evaluates the
            loss several times in a step.
        TypeError: a factory does not return an optimizer.
    """
    by_name = by_name or {}
    trainable = {name: [p for p in m.parameters() if p.requires_grad] for name, m in owners.items()}
    trainable = {name: parameters for name, parameters in trainable.items() if parameters}
    parts = (part for owner in owners.values() for part in owner.modules())
    if not trainable and not any(isinstance(part, Goodness) and part.fitted for part in parts):
        raise ValueError("no block has a trainable parameter: unfreeze at least one")
    for pattern in by_name:
        if not any(fnmatchcase(name, pattern) for name in trainable):
            raise ValueError(
                f"block_optimizers has {pattern!r}: it fits none of those with trainable parameters, "
                f"{', '.join(trainable)}"
            )
    made = {}
    for k, name in enumerate(owners):
        if name in trainable:
            optimizer = _make(name, trainable[name], default, by_name, lr)
            _scale_rates(optimizer, 1.0 if name == "readout" else lr_decay**k)
            made[name] = _fuse(optimizer)
    return BlockOptimizers(made)


def _make(
    name: str, parameters: list[nn.Parameter], default: Factory, by_name: Mapping[str, Factory], lr: float | None
) -> Optimizer:
    matching = [made for pattern, made in by_name.items() if fnmatchcase(name, pattern)]
    optimizer = (matching[-1] if matching else default)(parameters)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"the optimizer factory of {name} made {optimizer!r}: give one of torch.optim, such as "
            "functools.partial(torch.optim.Adam, lr=0.001)"
        )
    wrapped = [value for value in vars(optimizer).values() if isinstance(value, Optimizer)]
    if wrapped and not isinstance(optimizer, BlockOptimizers):
        warnings.warn(
            f"the optimizer of {name} is {type(optimizer).__name__}, which wraps {type(wrapped[0]).__name__}: what it "
            "keeps by itself is not in checkpoints, so that a resumed run may differ",
            stacklevel=2,
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"the optimizer of {name} is {type(optimizer).__name__}, which evaluates the loss several times in a step, "
            "and a sweep runs once: use one that does not, such as torch.optim.Adam"
        )
    for group in optimizer.param_groups:
        group.update({key: plain(value) for key, value in group.items() if key != "params"})
        if lr is not None and not matching:
            group["lr"] = lr
    return optimizer


def _scale_rates(optimizer: Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor


def default_rate(factory: Factory) -> float:
    """Learning rate that a factory sets."""
    return float(factory([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"])


def _fuse(optimizer: Optimizer) -> Optimizer:
    """Use torch's fused kernel if there is one and the factory has not set `fused` or `foreach`."""
    for group in optimizer.param_groups if type(optimizer) in _FUSED_OPTIMIZERS else []:
        open_choice = group.get("fused", False) is None and group.get("foreach") is None
        if open_choice and all(_fusible(p) for p in group["params"]) and not _is_sharded_sgd(optimizer):
            group["fused"] = not (group.get("differentiable") or group.get("dampening"))
            if group["fused"] and group.get("momentum"):
                optimizer.register_step_pre_hook(_start_momentum)
    return optimizer


def _start_momentum(optimizer: Optimizer, *_: object) -> None:
    """Create the momentum of weights that get a gradient after others did, for which torch's fused SGD fails."""
    for group in optimizer.param_groups:
        started = [p for p in group["params"] if "momentum_buffer" in optimizer.state.get(p, {})]
        late = [
            p for p in group["params"] if p.grad is not None and "momentum_buffer" not in optimizer.state.get(p, {})
        ]
        for p in late if started else []:  # then the first step moves by the gradient itself
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)


def _is_sharded_sgd(optimizer: Optimizer) -> bool:
    """Whether it is SGD on sharded weights, for which torch has no fused kernel."""
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return isinstance(optimizer, torch.optim.SGD) and any(hasattr(p, "device_mesh") for p in parameters)


def _fusible(parameter: Tensor) -> bool:
    if parameter.is_cpu:
        # fused SGD on the CPU updates only the last few half-precision weights, up to torch 2.11 at least
        return parameter.dtype in (torch.float32, torch.float64)
    return parameter.is_floating_point() and parameter.device.type in _FUSED_DEVICES
