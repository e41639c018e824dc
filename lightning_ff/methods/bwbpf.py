"""BWBPF (arXiv 2312.13311): sub-networks with pooled linear classifiers, each trained by its own cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from torch import nn

from lightning_ff.blocks import LocalBlock
from lightning_ff.cut import CutNetworkLearner, check_extra, check_output, cut_network, loss_for, warn_of_one_block
from lightning_ff.objectives import LocalLoss, OutputGoodness, PooledLinear
from lightning_ff.readouts import LastReadout


class BWBPF(CutNetworkLearner):
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
        loss: Local loss of every block; None is the cross-entropy.
        weights: Initial weights, see :func:`~lightning_ff.cut.backbone.backbone`.
        frozen: Number of leading blocks that do not learn and have no goodness; their batch norm stays in eval mode.
        channels_last: Keep the weights in torch's channels-last memory format.
        recompute: Recompute intermediate activations of a block in its backward: less memory, more time.
        **kwargs: See :class:`~lightning_ff.learner.LocalLearner`, such as `segments="sum_of_losses"`.

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
        loss: LocalLoss | None = None,
        weights: str | None = None,
        frozen: int = 0,
        channels_last: bool = False,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        check_extra("BWBPF", kwargs)
        objective = loss_for(loss)
        net, cut = cut_network(model, num_classes, input_shape, cuts, weights, frozen)
        check_output(net, cut, num_classes)
        warn_of_one_block(net, cut, cuts)
        heads = [*(PooledLinear() for _ in cut.names[1:]), OutputGoodness()]
        blocks = [
            LocalBlock(layer, head, deepcopy(objective), recompute=recompute, title=title)
            for layer, head, title in zip(cut, heads, cut.names, strict=True)
        ]
        super().__init__(net, blocks, input_shape, num_classes, LastReadout(), frozen, channels_last, **kwargs)
