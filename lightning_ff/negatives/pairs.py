"""Positives and negatives of a batch, with checks of what a sampler returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_ff.labels import Unlabelled
from lightning_ff.negatives.base import NegativeContext, NegativeSampler
from lightning_ff.negatives.hybrid import HybridImages
from lightning_ff.negatives.mixture import Mixture
from lightning_ff.negatives.wrong_label import WrongLabel
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import LocalLoss, ThresholdLoss

# Largest batch, and number of stand-in indices per process, in an epoch.
_ROWS, _RANKS = 2**20, 2**44


def pairs(
    sampler: NegativeSampler, image: Tensor, label: Tensor, index: Tensor | None, context: NegativeContext
) -> tuple[Tensor, Tensor]:
    """Positives and negatives of a batch.

    Args:
        sampler: Makes the negatives.
        image: Inputs `(N, *input_shape)`.
        label: Classes `(N,)`.
        index: Indices of the samples in the data set `(N,)`; None if the loader returns none.
        context: The network and the state of the run.

    Returns:
        Positives `(N, ...)` and negatives `(k N, ...)`, encoded.

    Raises:
        ValueError: the sampler needs indices that the loader does not return, or returned a tensor of a wrong shape.
        TypeError: the sampler returned something that is not a tensor.
    """
    if index is None:
        index = fallback_index(sampler, image, context)
    positive, negative = sampler.positives(image, label, context), sampler(image, label, index, context)
    check_pairs(sampler, context.network, image, positive, negative)
    return positive, negative


def fallback_index(sampler: NegativeSampler, image: Tensor, context: NegativeContext) -> Tensor:
    """Stand-in for missing sample indices: computed from rank, batch and row, distinct within an epoch."""
    if sampler.needs_index:
        raise ValueError(
            f"negatives={sampler} remembers samples by their index, which this loader's batches lack: yield "
            "(image, label, index), use a data module of lightning_ff.data, or WrongLabel"
        )
    start = context.rank * _RANKS + context.batch * _ROWS
    return torch.arange(start, start + len(image), device=image.device)


def check_pairs(sampler: NegativeSampler, network: LocalNetwork, image: Tensor, positive: Any, negative: Any) -> None:
    """Check the positives and negatives of a sampler, by shapes alone."""
    wanted: Sequence[int] = tuple(network.encoded_shape)
    if tuple(image.shape[1:]) != network.input_shape and isinstance(positive, Tensor):
        wanted = tuple(positive.shape[1:])  # convolutions accept images of another size
    features = "".join(f", {size}" for size in wanted)
    for name, rows, made in (("positives", "N", positive), ("negatives", "k N", negative)):
        want = f"return a tensor of shape ({rows}{features})"
        if not isinstance(made, Tensor):
            raise TypeError(f"negatives={sampler} gave {name} that are a {type(made).__name__}: {want}")
        if tuple(made.shape[1:]) != wanted or made.dim() == 0 or not len(made):
            raise ValueError(f"negatives={sampler} gave {name} of shape {tuple(made.shape)}: {want}")
    losses: list[LocalLoss] = [block.loss for block in network.stack if block.loss is not None]
    if len(negative) % len(positive) and not all(isinstance(loss, ThresholdLoss) for loss in losses):
        raise ValueError(
            f"negatives={sampler} gave {len(negative)} negatives for {len(positive)} positives, of shape "
            f"{tuple(negative.shape)}: return (k {len(positive)}{features}), k groups in the order of the positives, "
            "or ThresholdLoss takes any number of them"
        )


def default_sampler(network: LocalNetwork) -> NegativeSampler | None:
    """Wrong labels if a label is written into the input, hybrid images if not; None in class mode."""
    if network.mode == "class":
        return None
    if not isinstance(network.labels, Unlabelled):
        return WrongLabel()
    return HybridImages() if len(network.input_shape) == 3 else None


def check_sampler(sampler: NegativeSampler, network: LocalNetwork) -> None:
    """Check that a sampler, and each one in a mixture, fits the label encoding and the inputs."""
    if isinstance(sampler, Mixture):
        for each in sampler.each():
            check_sampler(each, network)
        return
    if isinstance(network.labels, Unlabelled) and sampler.writes_label:
        raise ValueError(
            f"negatives={sampler} differ from positives by their label, and labels=Unlabelled writes none: "
            "use HybridImages, or a label encoding"
        )
    if not sampler.writes_label and len(network.input_shape) != 3:
        raise ValueError(f"negatives={sampler} needs images (C, H, W), got input_shape={network.input_shape}")
