"""UFF, layer-wise unsupervised Forward-Forward (arXiv 2404.14664): cells that reconstruct their input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lightning_ff.blocks import GaussianNoise, LocalBlock, Normalize, mlp
from lightning_ff.learner import LocalLearner
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import Reconstruction
from lightning_ff.readouts import LinearReadout, Readout
from lightning_ff.spec import part
from lightning_ff.validate import check_int, check_ints, check_number

_ADAMW: Any = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}}


class UFF(LocalLearner):
    """Layer-wise unsupervised Forward-Forward (Hwang et al., arXiv 2404.14664): no labels and no negatives.

    A cell is an auto-encoder, which learns to decode its input from its activation, see
    :class:`~lightning_ff.Reconstruction`. Fully connected cells of `widths`, or convolutional ones of `channels` (3x3
    convolution, ReLU, max-pooling by 2). The next cell gets the activation normalised to mean 0 and variance 1. A
    linear classifier learns from all activations, beside the cells, and with `WindowSchedule(..., epochs=...)` after
    them. The paper's cells of generative adversarial networks are left out.

    Args:
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        widths: Units of each fully connected cell.
        channels: Channels of each convolutional cell instead.
        noise: Standard deviation of noise on a cell's input in training (denoising); the paper's is not known.
        readout: Classifier on the activations; None is a linear layer on all of them.
        optimizer: Factory of one optimizer per block.
        **kwargs: See :class:`~lightning_ff.learner.LocalLearner`.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.

    Example::

        >>> model = UFF(num_classes=10, input_shape=(1, 8, 8), widths=[48, 32])
        >>> model.blocks[1].terms[0].decoder[1]
        Linear(in_features=32, out_features=48, bias=True)
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: Sequence[int],
        widths: Sequence[int] | None = None,
        channels: Sequence[int] | None = None,
        noise: float = 0.0,
        readout: Readout | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = _ADAMW,
        **kwargs: Any,
    ) -> None:
        check_int("num_classes", num_classes)
        check_ints("input_shape", input_shape, "give the shape of one input, such as (1, 28, 28)")
        if (widths is None) == (channels is None):
            raise ValueError(f"widths={widths}, channels={channels}: give one of the two")
        check_number("noise", noise, "must be 0 or more", least=0)
        made = GaussianNoise(noise)
        if widths is not None:
            check_ints("widths", widths, "give the units of every cell, such as [500, 500]")
            layers = mlp(prod(input_shape), widths)
        else:
            layers = _convolutions(input_shape, channels)
        cells = [nn.Sequential(made, *layer) if noise else layer for layer in layers]
        blocks = [LocalBlock(cell, normalization=Normalize("layer"), terms=[Reconstruction()]) for cell in cells]
        combined = LinearReadout(skip_first=False) if readout is None else part(readout)
        super().__init__(LocalNetwork(blocks, input_shape, num_classes, combined), optimizer=optimizer, **kwargs)


def _convolutions(input_shape: Sequence[int], channels: Any) -> list[nn.Sequential]:
    """Layers of convolutional cells."""
    check_ints("channels", channels, "give the channels of every cell, such as [16, 32]")
    if len(input_shape) != 3 or not channels or min(channels) < 1:
        raise ValueError(f"channels={list(channels)} for inputs {tuple(input_shape)}: give some, for maps")
    sizes = pairwise([input_shape[0], *channels])
    return [nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for a, b in sizes]
