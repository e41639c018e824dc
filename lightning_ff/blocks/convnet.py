"""A small plain convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lightning_ff.validate import check_int, check_ints


class ConvNet(nn.Sequential):
    """Convolution, batch norm and ReLU per layer, some of them followed by max-pooling, and a linear classifier.

    A :func:`~lightning_ff.blocks.partition` returns one block per convolution, and the classifier.

    Args:
        num_classes: Number of classes.
        channels: Channels of the input.
        widths: Channels of each layer.
        pools: Indices of the layers that end with a max-pooling by 2; None is all but the last.
        kernel_size: Size of the convolution kernels, odd.

    Raises:
        ValueError: a width below 1, an index in `pools` out of range, an even kernel size.

    Example::

        >>> import torch
        >>> ConvNet(10, channels=1, widths=[8, 16])(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 128),
        pools: Sequence[int] | None = None,
        kernel_size: int = 3,
    ) -> None:
        check_int("num_classes", num_classes)
        check_int("channels", channels)
        if num_classes < 1 or channels < 1:
            raise ValueError(f"num_classes={num_classes}, channels={channels}: each must be at least 1")
        check_int("kernel_size", kernel_size, "must be odd, such as 3")
        check_ints("widths", widths, "give the channels of every layer, such as [32, 64]")
        if not widths or min(widths) < 1:
            raise ValueError(f"widths={list(widths)}: give one number of channels per layer, each at least 1")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: must be odd, such as 3")
        if pools is not None:
            check_ints("pools", pools, "give indices of layers, such as [0, 1], or None")
        pooled = range(len(widths) - 1) if pools is None else pools
        for index in pooled:
            if not 0 <= index < len(widths):
                raise ValueError(f"pools={list(pooled)}: there is no layer {index} among {len(widths)}")
        layers: list[nn.Module] = []
        for k, (before, width) in enumerate(zip([channels, *widths], widths, strict=False)):
            convolution = nn.Conv2d(before, width, kernel_size, padding=kernel_size // 2, bias=False)
            parts: list[nn.Module] = [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            layers.append(nn.Sequential(*parts, *([nn.MaxPool2d(2)] if k in pooled else [])))
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))
        super().__init__(*layers, head)
        # attributes of the same names, so that a checkpoint can describe the network
        self.num_classes, self.channels, self.widths = num_classes, channels, list(widths)
        self.pools, self.kernel_size = None if pools is None else list(pools), kernel_size
