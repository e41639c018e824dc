"""Errors for losses and states that are not finite, with the name of the block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

import torch
from torch import Tensor, nn

from lightning_ff.optim import BlockOptimizers

_REMEDY = "lower the learning rate, clip gradients (gradient_clip_val) or use precision='32-true'"


class NonFiniteLoss(RuntimeError):
    """A loss, a weight, a buffer or the state of an optimizer became NaN or infinite."""


def check_losses(values: Mapping[str, float], images: Tensor | None = None) -> None:
    """Check losses by name.

    Args:
        values: Losses by name.
        images: Images of the last batch, which are named if they are the cause.

    Raises:
        NonFiniteLoss: one of them is not finite.
    """
    bad = [name for name, value in values.items() if value != value or abs(value) == float("inf")]
    if not bad:
        return
    cause = f"{_REMEDY}; images with such values have the same effect"
    if images is not None and not bool(images.isfinite().all()):
        cause = "the images of this batch have such values: mend the data or the transforms"
    raise NonFiniteLoss(
        f"the loss of {bad[0]} is {values[bad[0]]}: training stops, the last checkpoint holds good weights; {cause}"
    )


def open_buffers(owners: Mapping[str, nn.Module], nan: bool) -> set[str]:
    """Names of buffers that are not finite, such as the mask of an attention; with NaN only if `nan`."""
    buffers = _buffers(owners)
    return {f"{name}.{key}" for name, key, b in buffers if not _finite([b]) and (nan or not bool(b.isnan().any()))}


def check_state(
    owners: Mapping[str, nn.Module], optimizers: BlockOptimizers | None = None, open_: Iterable[str] = ()
) -> None:
    """Check weights, buffers and optimizer states by name, before they are saved.

    Args:
        owners: Modules by name.
        optimizers: Their optimizers.
        open_: Names of buffers that need not be finite.

    Raises:
        NonFiniteLoss: one of them is not finite.
    """
    buffers: dict[str, list[Tensor]] = {}
    for name, key, buffer in _buffers(owners):
        if f"{name}.{key}" not in set(open_):
            buffers.setdefault(name, []).append(buffer)
    for name, module in owners.items():
        found = {
            "weights": [p.detach() for p in module.parameters()],
            "buffers": buffers.get(name, []),
            "optimizer states": _states(name, optimizers),
        }
        for what, tensors in found.items():
            if not _finite(tensors):
                raise NonFiniteLoss(
                    f"the {what} of {name} are no longer finite: training stops and nothing is saved over the last "
                    f"checkpoint; {_REMEDY}"
                )


def _states(name: str, optimizers: BlockOptimizers | None) -> list[Tensor]:
    made = optimizers.by_block.get(name) if optimizers is not None else None
    if made is None or optimizers is None:
        return []
    states = [made.state.get(p, {}) for p in optimizers.parameters(name)]
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def _buffers(owners: Mapping[str, nn.Module]) -> list[tuple[str, str, Tensor]]:
    return [(name, key, buffer) for name, module in owners.items() for key, buffer in module.named_buffers()]


def _finite(tensors: list[Tensor]) -> bool:
    """Whether all values are finite, with one transfer for each device and type, such as sharded tensors."""
    checked = sorted((t for t in tensors if t.is_floating_point()), key=_kind)
    groups = [list(group) for _, group in groupby(checked, _kind)]
    return all(bool(torch.stack([t.isfinite().all() for t in group]).all()) for group in groups)


def _kind(tensor: Tensor) -> str:
    return f"{type(tensor).__name__} {tensor.device}"
