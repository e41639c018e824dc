"""Backprop and deep supervision: controls for Forward-Forward, in the same training loop."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from torch import nn

from lightning_ff.blocks import LocalBlock
from lightning_ff.blocks.normalization import Normalization
from lightning_ff.cut import (
    CutNetworkLearner,
    check_extra,
    check_output,
    check_segments,
    check_terms,
    cut_network,
    loss_for,
)
from lightning_ff.methods.scalable_forward_forward import ScalableForwardForward
from lightning_ff.objectives import LocalLoss, OutputGoodness, Term
from lightning_ff.spec import part
from lightning_ff.sweep import Objective


class Backprop(CutNetworkLearner):
    """Ordinary end-to-end backprop on a network's own classifier, as a control: one segment, the last loss.

    With a credit that looks at all blocks, such as :class:`~lightning_ff.ActivationRelaxation`, blocks learn from its
    signals instead.

    The network is cut into blocks nevertheless, so that features, metrics and callbacks are the same as for the other
    methods; nothing is inserted between blocks.

    Args:
        model: Name of a classification model of torchvision, such as "resnet18", or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        cuts: How the network is cut, see :func:`~lightning_ff.blocks.partition`.
        loss: Loss on the classifier's output; None is the cross-entropy.
        weights: Initial weights, see :func:`~lightning_ff.cut.backbone.backbone`.
        frozen: Number of leading blocks that do not learn; their batch norm stays in eval mode.
        channels_last: Keep the weights in torch's channels-last memory format.
        recompute: Recompute intermediate activations of a block in the backward: less memory, more time.
        terms: Terms added to the loss for every block but the last, such as a penalty on activations.
        **kwargs: See :class:`~lightning_ff.learner.LocalLearner`.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        input_shape: Sequence[int],
        cuts: int | str | list[str] = "blocks",
        loss: LocalLoss | None = None,
        weights: str | None = None,
        frozen: int = 0,
        channels_last: bool = False,
        recompute: bool = False,
        terms: list[Term] | None = None,
        **kwargs: Any,
    ) -> None:
        check_terms(terms)
        check_extra(type(self).__name__, kwargs)
        check_segments("Backprop", "the last loss", kwargs)
        objective = loss_for(loss)
        net, cut = cut_network(model, num_classes, input_shape, cuts, weights, frozen)
        check_output(net, cut, num_classes)
        made_terms = part(list(terms or []))
        *inner, last = [
            LocalBlock(layer, terms=[deepcopy(term) for term in made_terms], recompute=recompute, title=title)
            for layer, title in zip(cut, cut.names, strict=True)
        ]
        blocks = [*inner, LocalBlock(last.layers, OutputGoodness(), objective, recompute=recompute, title=last.title)]
        one = _segments(kwargs)
        super().__init__(net, blocks, input_shape, num_classes, None, frozen, channels_last, segments=one, **kwargs)


def _segments(arguments: dict[str, Any]) -> Objective:
    """One segment, or with a credit that looks at all blocks, single blocks."""
    credit = part(arguments.get("credit"))
    return "last" if getattr(credit, "local", True) else "local"


class DeepSupervision(ScalableForwardForward):
    """Every block's loss as in :class:`ScalableForwardForward`, with gradients through all blocks before it.

    One segment, the sum of the losses. A control that separates the effect of many losses from that of detaching the
    blocks.

    Args:
        model: Name of a classification model of torchvision, such as "resnet18", or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        normalization: See :class:`ScalableForwardForward`, but by default nothing is inserted.
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
        check_segments("DeepSupervision", "the sum of all losses", kwargs)
        super().__init__(
            model, num_classes, input_shape, normalization=normalization, segments="sum_of_losses", **kwargs
        )
