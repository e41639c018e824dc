"""Errors for losses and weights that are not finite, with the name of the block."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class NonFiniteLoss(RuntimeError):
    """A loss or a weight became NaN or infinite."""


def check_losses(values: Mapping[str, float]) -> None:
    """Check losses by name.

    Raises:
        NonFiniteLoss: one of them is not finite.
    """
    bad = [name for name, value in values.items() if value != value or abs(value) == float("inf")]
    if bad:
        raise NonFiniteLoss(
            f"the loss of {bad[0]} is {values[bad[0]]}: training stops, the last checkpoint holds good weights; "
            "lower the learning rate, clip gradients (gradient_clip_val) or use precision='32-true'"
        )


def check_weights(owners: Mapping[str, nn.Module]) -> None:
    """Check all weights of modules by name, before they are saved.

    Raises:
        NonFiniteLoss: one of them is not finite.
    """
    for name, module in owners.items():
        parameters = list(module.parameters())
        if parameters and not bool(torch.stack([p.detach().isfinite().all() for p in parameters]).all()):
            raise NonFiniteLoss(
                f"the weights of {name} are no longer finite: training stops and nothing is saved over the last "
                "checkpoint; lower the learning rate or clip gradients (gradient_clip_val)"
            )
