"""Backprop and deep supervision: the controls that Forward-Forward is compared with, in the same loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lightning_ff.blocks import LocalBlock, partition
from lightning_ff.blocks.normalization import Normalization
from lightning_ff.kinds import kind, sizes, whole
from lightning_ff.learner import LocalLearner
from lightning_ff.methods.backbone import backbone
from lightning_ff.methods.scalable_forward_forward import ScalableForwardForward
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import CrossEntropy, LocalLoss, OutputGoodness
from lightning_ff.readouts import LastReadout
from lightning_ff.spec import part


class Backprop(LocalLearner):
    """Ordinary end-to-end backprop on a network's own classifier, as a control: one segment, the last loss.

    The network is cut into blocks all the same, so that features, metrics and callbacks are those of the other
    methods; nothing is inserted between them.

    Args:
        model: Name of a classification model of torchvision, such as "resnet18", or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        cuts: Where the network is cut, see :func:`~lightning_ff.blocks.partition`.
        loss: Loss on the classifier's output; None is the cross-entropy.
        weights: Weights to begin with, see :func:`~lightning_ff.methods.backbone.backbone`.
        channels_last: Keep the weights in torch's channels-last memory format.
        recompute: Compute the inside of a block again in the backward, in pieces: less memory, more time.
        **kwargs: See :class:`~lightning_ff.learner.LocalLearner`.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not what its annotation says.
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        input_shape: Sequence[int],
        cuts: int | str | list[str] = "blocks",
        loss: LocalLoss | None = None,
        weights: str | None = None,
        channels_last: bool = False,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        whole("num_classes", num_classes)
        sizes("input_shape", input_shape, "give the shape of one input, such as (3, 32, 32)")
        objective = part(loss) or CrossEntropy()
        kind("loss", objective, LocalLoss, "give an instance, such as CrossEntropy()")
        net = backbone(part(model), num_classes, weights)
        cut = partition(net, cuts, input_shape=input_shape)
        *inner, last = [
            LocalBlock(layer, recompute=recompute, title=title) for layer, title in zip(cut, cut.names, strict=True)
        ]
        blocks = [*inner, LocalBlock(last.layers, OutputGoodness(), objective, recompute=recompute, title=last.title)]
        if channels_last:
            net.to(memory_format=torch.channels_last)
        super().__init__(LocalNetwork(blocks, input_shape, num_classes, LastReadout()), segments="last", **kwargs)
        if self.hparams.get("weights") is not None:
            self.hparams["weights"] = None  # a checkpoint of this learner has its own
        self._model = [net]

    @property
    def model(self) -> nn.Module:
        """The network that was given, with the weights as trained."""
        return self._model[0]


class DeepSupervision(ScalableForwardForward):
    """Every block's loss as in :class:`ScalableForwardForward`, with gradients through all blocks before it.

    One segment, the sum of the losses. The control that tells the effect of many losses from that of cutting the
    gradients between blocks.

    Args:
        model: Name of a classification model of torchvision, such as "resnet18", or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        normalization: As there, but nothing is inserted unless asked for.
        **kwargs: See :class:`ScalableForwardForward`.
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        input_shape: Sequence[int],
        normalization: Normalization = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            model, num_classes, input_shape, normalization=normalization, segments="sum_of_losses", **kwargs
        )
