"""Scalable Forward-Forward (arXiv 2501.03176): any convolutional network, block by block, in class mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from lightning_ff.blocks import Normalize
from lightning_ff.blocks.normalization import Normalization
from lightning_ff.cut import CutNetworkLearner, Head, check_extra, check_terms, cut_network, loss_for, measured_blocks
from lightning_ff.objectives import AuxiliaryGoodness, Goodness, LocalLoss, Term
from lightning_ff.readouts import Readout
from lightning_ff.spec import part
from lightning_ff.validate import check_type


class ScalableForwardForward(CutNetworkLearner):
    """Every block of a network learns from a class-wise goodness of its own output (arXiv 2501.03176).

    A small auxiliary convolution per block outputs one map per class, whose mean square is the goodness of that class;
    the loss is the cross-entropy of the goodness. There are no negatives and no labels in the input. The output of a
    block is normalised and detached. Choices that the paper does not specify are arguments.

    Args:
        model: Name of a classification model of torchvision, such as "resnet18", or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        cuts: How the network is cut, see :func:`~lightning_ff.blocks.partition`: "blocks", "layers", "stages",
            "finest", a number of blocks, or paths of modules.
        goodness: Goodness of every block; None is :class:`~lightning_ff.objectives.AuxiliaryGoodness`.
        loss: Local loss of every block; None is the cross-entropy.
        terms: Terms added to the loss of every block but the model's own classifier.
        goodness_from: The goodness is that of the "raw" output of a block, or of the "normalized" one.
        normalization: Normalisation of blocks' outputs: "layer", "channel", "l2", "rms" or "none". Only with "none"
            does the model on its own compute the trained function.
        head: The last block, with the model's own classifier: "local" trains it as one more block, on its own output;
            "auxiliary" treats it like the other blocks; "none" leaves it out.
        readout: Combines the blocks' scores; None is the mean of the goodness over all blocks except the classifier,
            or with segments="last" the last block's, which alone learns.
        weights: Initial weights: of torchvision by name, or a file, see
            :func:`~lightning_ff.cut.backbone.backbone`.
        frozen: Number of leading blocks that do not learn and have no goodness; their batch norm stays in eval mode.
        channels_last: Keep the weights in torch's channels-last memory format, faster on most GPUs and some CPUs.
        recompute: Recompute intermediate activations of a block in its backward: less memory, more time.
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
        goodness: Goodness | None = None,
        loss: LocalLoss | None = None,
        terms: list[Term] | None = None,
        goodness_from: Literal["raw", "normalized"] = "raw",
        normalization: Normalization = "layer",
        head: Head = "local",
        readout: Readout | None = None,
        weights: str | None = None,
        frozen: int = 0,
        channels_last: bool = False,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        check_extra(type(self).__name__, kwargs)
        measure, objective = AuxiliaryGoodness() if goodness is None else part(goodness), loss_for(loss)
        check_type("goodness", measure, Goodness, "give a Goodness, such as AuxiliaryGoodness()")
        check_terms(terms)
        net, cut = cut_network(model, num_classes, input_shape, cuts, weights, frozen)
        blocks = measured_blocks(
            net,
            cut,
            num_classes,
            cuts,
            head,
            measure,
            objective,
            Normalize(normalization),
            part(list(terms or [])),
            goodness_from=goodness_from,
            recompute=recompute,
        )
        super().__init__(net, blocks, input_shape, num_classes, part(readout), frozen, channels_last, **kwargs)
