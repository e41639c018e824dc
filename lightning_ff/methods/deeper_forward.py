"""DeeperForward (ICLR 2025): channel-wise goodness that group normalisation removes exactly, and free skips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_ff.blocks import GroupNormalize, LocalBlock, Normalize
from lightning_ff.learner import LocalLearner
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import ChannelGoodness, CrossEntropy
from lightning_ff.readouts import IntervalReadout, Readout
from lightning_ff.spec import part
from lightning_ff.validate import check_flag, check_image_shape, check_ints

_ADAMW: Any = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}


class DeeperForward(LocalLearner):
    """DeeperForward (Sun et al., ICLR 2025): many convolutions, each with one group of channels per class.

    A block is a 3x3 convolution without bias, ReLU and, in some, an average pooling by 2. Its goodness of a class is
    the mean activation of the class's channels; the loss is the cross-entropy. The next block gets the map normalised
    per group, which removes this goodness exactly. With `skips` the blocks after the first are pairs, and the input of
    a pair is added to its output; if the output has more channels, it is concatenated within each class's group, and
    the convolution makes the rest.

    The paper's rates are not known here. The place of the skip and of the pooling after the ReLU is a choice: so the
    skip, whose groups have mean 0, does not change the order of the goodness.

    Args:
        num_classes: Number of classes.
        input_shape: Shape of one input `(C, H, W)`; images are normalised to mean 0 and variance 1.
        channels: Channels of each convolution, multiples of the number of classes; the default has 17.
        pools: Indices of the blocks that end with an average pooling; None is every block after which channels grow.
        skips: Add skips over pairs of blocks. The number of blocks is then odd.
        readout: Combines the blocks' scores; None is the interval of blocks that is best on the validation data.
        optimizer: Factory of one optimizer per block.
        **kwargs: See :class:`~lightning_ff.learner.LocalLearner`.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.

    Example::

        >>> model = DeeperForward(10, (1, 8, 8), channels=[20, 20, 20, 40, 40])
        >>> [block.layers.convolution.out_channels for block in model.blocks]
        [20, 20, 20, 40, 20]
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: Sequence[int],
        channels: Sequence[int] = (*[100] * 5, *[200] * 4, *[400] * 4, *[800] * 4),
        pools: Sequence[int] | None = None,
        skips: bool = True,
        readout: Readout | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = _ADAMW,
        **kwargs: Any,
    ) -> None:
        check_image_shape(num_classes, input_shape)
        check_ints("channels", channels, "give the channels of every convolution, such as [20, 40, 80]")
        check_flag("skips", skips)
        _check_channels(channels, num_classes, skips)
        pooled = _pools(channels, pools)
        layers = [_Layer(k, [input_shape[0], *channels], num_classes, k in pooled, skips) for k in range(len(channels))]
        blocks = [
            LocalBlock(each, ChannelGoodness(False), CrossEntropy(), GroupNormalize(num_classes)) for each in layers
        ]
        combined = IntervalReadout() if readout is None else part(readout)
        network = LocalNetwork(blocks, input_shape, num_classes, combined, input_normalization=Normalize("layer"))
        super().__init__(network, optimizer=optimizer, **kwargs)


class _Layer(nn.Module):
    """A convolution that begins a pair, which hands its input on, or ends one, which gets that as a skip."""

    def __init__(self, index: int, channels: Sequence[int], classes: int, pool: bool, skips: bool) -> None:
        super().__init__()
        self.begins, ends = skips and index % 2 == 1, skips and index > 0 and index % 2 == 0
        inputs, outputs = channels[index : index + 2]
        self.grows = ends and channels[index - 1] < outputs
        self.classes = classes
        made = outputs - channels[index - 1] if self.grows else outputs
        self.convolution = nn.Conv2d(inputs, made, 3, padding=1, bias=False)
        self.pool = nn.AvgPool2d(2) if pool else nn.Identity()

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        h = self.convolution(x).relu()
        if skip is not None:
            h = self._interleaved(h, skip) if self.grows else h + skip
        h = self.pool(h)
        return (h, self.pool(x)) if self.begins else h

    def _interleaved(self, h: Tensor, skip: Tensor) -> Tensor:
        """Concatenation within the group of channels of each class."""
        groups = [each.unflatten(1, (self.classes, -1)) for each in (h, skip)]
        return torch.cat(groups, 2).flatten(1, 2)


def _check_channels(channels: Sequence[int], num_classes: int, skips: bool) -> None:
    """Check the channels of all blocks."""
    if not channels or min(channels) < 1 or any(each % num_classes for each in channels):
        raise ValueError(f"channels={list(channels)}: give multiples of num_classes={num_classes}, one per convolution")
    if skips and len(channels) % 2 == 0:
        raise ValueError(f"channels={list(channels)}: skips are over pairs after the first block, give an odd number")
    if skips and any(channels[k] < channels[k - 2] for k in range(2, len(channels), 2)):
        raise ValueError(f"channels={list(channels)}: with skips they must not shrink")


def _pools(channels: Sequence[int], pools: Sequence[int] | None) -> list[int]:
    """Indices of the blocks that end with a pooling."""
    if pools is None:
        return [k for k in range(len(channels) - 1) if channels[k + 1] > channels[k]]
    check_ints("pools", pools, "give indices of blocks, such as [0, 1], or None")
    if not all(0 <= k < len(channels) for k in pools) or len(set(pools)) < len(pools):
        raise ValueError(f"pools={list(pools)}: there are {len(channels)} blocks, numbered from 0; name each once")
    return list(pools)
