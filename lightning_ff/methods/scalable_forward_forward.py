"""Scalable Forward-Forward (arXiv 2501.03176): any convolutional network, block by block, in class mode."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal

from torch import nn

from lightning_ff._torch import ConvBase
from lightning_ff.blocks import LocalBlock, Normalize
from lightning_ff.blocks.normalization import Normalization
from lightning_ff.cut import CutNetworkLearner, check_extra, check_output, cut_network, loss_for, warn_of_one_block
from lightning_ff.objectives import AuxiliaryGoodness, Goodness, LocalLoss, OutputGoodness
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
        goodness_from: Literal["raw", "normalized"] = "raw",
        normalization: Normalization = "layer",
        head: Literal["local", "auxiliary", "none"] = "local",
        readout: Readout | None = None,
        weights: str | None = None,
        frozen: int = 0,
        channels_last: bool = False,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        if head not in ("local", "auxiliary", "none"):
            raise ValueError(f"head={head!r}: choose 'local', 'auxiliary' or 'none'")
        check_extra(type(self).__name__, kwargs)
        measure, objective = AuxiliaryGoodness() if goodness is None else part(goodness), loss_for(loss)
        check_type("goodness", measure, Goodness, "give a Goodness, such as AuxiliaryGoodness()")
        net, cut = cut_network(model, num_classes, input_shape, cuts, weights, frozen)
        if head != "none":
            check_output(net, cut, num_classes if head == "local" else None)
        warn_of_one_block(net, cut, cuts)
        layers = list(cut)
        if head == "none":
            _check_is_head(layers[-1], cut.names[-1], cuts)
            layers.pop().requires_grad_(False)
        parts: dict[str, Any] = {"goodness_from": goodness_from, "recompute": recompute}
        blocks = [
            LocalBlock(layer, deepcopy(measure), deepcopy(objective), Normalize(normalization), **parts, title=title)
            for layer, title in zip(layers, cut.names, strict=False)
        ]
        if head == "local":
            blocks[-1] = LocalBlock(
                layers[-1], OutputGoodness(), deepcopy(objective), recompute=recompute, title=cut.names[-1]
            )
        super().__init__(net, blocks, input_shape, num_classes, part(readout), frozen, channels_last, **kwargs)


def _check_is_head(layer: nn.Module, name: str, cuts: object) -> None:
    """Check that the last block can be left out: it has one weight layer, or only linear layers."""
    weighted = [
        module for module in layer.modules() if isinstance(module, (ConvBase, nn.Linear, nn.MultiheadAttention))
    ]
    linear = isinstance(cuts, str) and all(type(module) is nn.Linear for module in weighted)
    if len(weighted) > 1 and not linear:
        raise ValueError(
            f"head='none' would leave out the last block, {name}, which holds {len(weighted)} weight layers and not "
            "the classifier alone: use head='local' or 'auxiliary', or cuts=[...] with the path of the module before "
            "the classifier"
        )
