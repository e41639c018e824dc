"""Mono-Forward (arXiv 2501.09238): every layer learns from the cross-entropy of its own linear projection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_ff.blocks.normalization import Normalization
from lightning_ff.cut import Head, check_own
from lightning_ff.methods.scalable_forward_forward import ScalableForwardForward
from lightning_ff.objectives import LinearGoodness
from lightning_ff.readouts import LastReadout, Readout
from lightning_ff.spec import part


class MonoForward(ScalableForwardForward):
    """Every layer's goodness is a linear projection of its activation, one number per class (arXiv 2501.09238).

    The loss is the cross-entropy of the goodness `G = h M^T`. The projection M and the layer's weights learn together,
    and the activation is handed on as it is, detached. The network predicts by the goodness of its last layer.

    Args:
        model: Name of a classification model of torchvision, such as "resnet18", or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        cuts: How the network is cut, see :func:`~lightning_ff.blocks.partition`.
        bias: Learn an offset per class.
        max_features: Average maps before the projection to at most as many features, see
            :class:`~lightning_ff.LinearGoodness`.
        normalization: Normalisation of blocks' outputs.
        head: The model's own classifier, see :class:`ScalableForwardForward`; "none" leaves it out, since the last
            layer has a projection of its own.
        readout: Combines the blocks' scores; None is the last block's. The sum, `SumReadout()`, is published too.
        **kwargs: See :class:`ScalableForwardForward`.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.

    Example::

        >>> from lightning_ff import MLP
        >>> model = MonoForward(MLP(10, inputs=64, widths=[32, 16]), num_classes=10, input_shape=(1, 8, 8))
        >>> [tuple(block.goodness.projection.weight.shape) for block in model.blocks]
        [(10, 32), (10, 16)]
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        input_shape: Sequence[int],
        cuts: int | str | list[str] = "layers",
        bias: bool = False,
        max_features: int | None = None,
        normalization: Normalization = "none",
        head: Head = "none",
        readout: Readout | None = None,
        **kwargs: Any,
    ) -> None:
        check_own(type(self).__name__, kwargs, "goodness")
        super().__init__(
            model,
            num_classes,
            input_shape,
            cuts=cuts,
            goodness=LinearGoodness(bias, max_features),
            normalization=normalization,
            head=head,
            readout=LastReadout() if readout is None else part(readout),
            **kwargs,
        )
