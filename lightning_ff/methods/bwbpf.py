"""BWBPF (arXiv 2312.13311): sub-networks with pooled linear classifiers, each trained by its own cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_ff.cut import check_own
from lightning_ff.methods.scalable_forward_forward import ScalableForwardForward
from lightning_ff.objectives import PooledLinear
from lightning_ff.readouts import LastReadout, Readout
from lightning_ff.spec import part


class BWBPF(ScalableForwardForward):
    """Block-wise BP-free network: every sub-network learns from a linear classifier on its pooled output.

    The network is cut into K sub-networks (arXiv 2312.13311). Each of the first K - 1 has a global average pool and a
    linear classifier, :class:`~lightning_ff.objectives.PooledLinear`; the last one ends with the model's own
    classifier. Each loss is a cross-entropy. Nothing is inserted between blocks, and the last block predicts.

    There are two variants. *As described* in the abstract, sub-networks are optimised separately: the input of each is
    detached (the default, `segments="local"`). *As released*, the code never detaches, so that each loss is
    back-propagated through all sub-networks before its own: `segments="sum_of_losses"`, deep supervision. It is not
    known which of the two gave the published numbers.

    The paper cuts a ResNet at its four stages, where the stem is part of the first and the classifier of the last:
    `cuts=["layer1", "layer2", "layer3"]`. With `cuts="stages"`, stem and classifier are blocks of their own, and the
    last loss updates the classifier alone.

    Args:
        model: Name of a classification model of torchvision, such as "resnet50", or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        cuts: How the network is cut, see :func:`~lightning_ff.blocks.partition`.
        readout: Combines the blocks' scores; None is the last block's.
        **kwargs: See :class:`ScalableForwardForward`; nothing is inserted between blocks.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.

    Example::

        >>> from lightning_ff import ConvNet
        >>> model = BWBPF(ConvNet(10, channels=1, widths=[8, 16]), num_classes=10, input_shape=(1, 8, 8), cuts="blocks")
        >>> [block.goodness for block in model.blocks]
        [PooledLinear(
          (projection): Linear(in_features=8, out_features=10, bias=True)
        ), PooledLinear(
          (projection): Linear(in_features=16, out_features=10, bias=True)
        ), OutputGoodness()]
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        input_shape: Sequence[int],
        cuts: int | str | list[str] = "stages",
        readout: Readout | None = None,
        **kwargs: Any,
    ) -> None:
        check_own(type(self).__name__, kwargs, "goodness", "normalization")
        super().__init__(
            model,
            num_classes,
            input_shape,
            cuts=cuts,
            goodness=PooledLinear(),
            normalization="none",
            readout=LastReadout() if readout is None else part(readout),
            **kwargs,
        )
