"""Hyperspherical Forward-Forward: the goodness of a class is the cosine to its prototype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_ff.blocks.normalization import Normalization
from lightning_ff.cut import Head, check_own
from lightning_ff.methods.scalable_forward_forward import ScalableForwardForward
from lightning_ff.objectives import CosineGoodness


class HypersphericalFF(ScalableForwardForward):
    """Hyperspherical Forward-Forward: every block classifies by the angle to unit prototypes, in one pass.

    The goodness `g_c = scale cos(h, w_c)` of a block has one prototype `w_c` per class; the loss is its cross-entropy.
    The published scale, and whether the prototypes learn, are not known here: both are arguments.

    Args:
        model: Name of a classification model of torchvision, such as "resnet18", or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        cuts: How the network is cut, see :func:`~lightning_ff.blocks.partition`.
        scale: Factor of the cosine, above 0.
        learned: Learn the prototypes; otherwise they are fixed random directions.
        normalization: Normalisation of blocks' outputs.
        head: The model's own classifier, see :class:`ScalableForwardForward`; "none" leaves it out.
        **kwargs: See :class:`ScalableForwardForward`.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.

    Example::

        >>> from lightning_ff import MLP
        >>> model = HypersphericalFF(MLP(10, inputs=64, widths=[32, 16]), num_classes=10, input_shape=(1, 8, 8))
        >>> [tuple(block.goodness.prototypes.shape) for block in model.blocks]
        [(10, 32), (10, 16)]
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        input_shape: Sequence[int],
        cuts: int | str | list[str] = "layers",
        scale: float = 16.0,
        learned: bool = True,
        normalization: Normalization = "l2",
        head: Head = "none",
        **kwargs: Any,
    ) -> None:
        check_own(type(self).__name__, kwargs, "goodness")
        super().__init__(
            model,
            num_classes,
            input_shape,
            cuts=cuts,
            goodness=CosineGoodness(scale, learned),
            normalization=normalization,
            head=head,
            **kwargs,
        )
