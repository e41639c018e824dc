"""Scalable Forward-Forward (arXiv 2501.03176): any convolutional network, block by block, in class mode."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import nn

from lightning_ff.blocks import LocalBlock, Normalize, partition
from lightning_ff.blocks.normalization import Normalization
from lightning_ff.kinds import kind, sizes, whole
from lightning_ff.learner import LocalLearner
from lightning_ff.methods.backbone import backbone, classifier
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import AuxiliaryGoodness, CrossEntropy, Goodness, LocalLoss, OutputGoodness
from lightning_ff.readouts import MeanReadout, Readout
from lightning_ff.spec import part


class ScalableForwardForward(LocalLearner):
    """Every block of a network learns from a class-wise goodness of its own output (arXiv 2501.03176).

    A small auxiliary convolution per block gives one map per class, whose mean square is the goodness of that class;
    the loss is the cross-entropy of the goodness. There are no negatives and no labels in the input. What a block
    hands on is normalised and detached. What the paper leaves open is an argument here.

    Args:
        model: Name of a classification model of torchvision, such as "resnet18", or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        cuts: Where the network is cut, see :func:`~lightning_ff.blocks.partition`: "blocks", "layers", "stages",
            "finest", a number of blocks, or paths of modules.
        goodness: Goodness of every block; None is :class:`~lightning_ff.objectives.AuxiliaryGoodness`.
        loss: Local loss of every block; None is the cross-entropy.
        goodness_from: The goodness is that of the "raw" output of a block, or of the "normalized" one.
        normalization: What a block hands on is normalised: "layer", "channel", "l2", "rms" or "none". Only with
            "none" does the bare model compute the trained function.
        head: The last block, with the classifier that the model brings along: "local" trains it as one more block,
            from its own output; "auxiliary" treats it as the others; "none" leaves it out.
        readout: How blocks' answers are joined; None is the mean of the goodness of all blocks but the classifier.
        weights: Weights to begin with: of torchvision by name, or a file, see
            :func:`~lightning_ff.methods.backbone.backbone`.
        frozen: Number of leading blocks that do not learn and have no say; their batch norm stays in eval mode.
        channels_last: Keep the weights in torch's channels-last memory format, which suits most GPUs and some CPUs.
        recompute: Compute the inside of a block again in its backward, in pieces: less memory, more time.
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
        whole("num_classes", num_classes)
        sizes("input_shape", input_shape, "give the shape of one input, such as (3, 32, 32)")
        whole("frozen", frozen)
        if head not in ("local", "auxiliary", "none"):
            raise ValueError(f"head={head!r}: choose 'local', 'auxiliary' or 'none'")
        measure, objective = part(goodness) or AuxiliaryGoodness(), part(loss) or CrossEntropy()
        kind("goodness", measure, Goodness, "give an instance, such as AuxiliaryGoodness()")
        net = backbone(part(model), num_classes, weights)
        cut = partition(net, cuts, input_shape=input_shape)
        layers = list(cut)
        if head == "none":
            layers.pop().requires_grad_(False)
        if not 0 <= frozen < len(layers):
            raise ValueError(f"frozen={frozen}: must be at least 0 and leave one of the {len(layers)} blocks to learn")
        parts: dict[str, Any] = {"goodness_from": goodness_from, "recompute": recompute}
        blocks = [
            LocalBlock(layer, deepcopy(measure), deepcopy(objective), Normalize(normalization), **parts, title=title)
            for layer, title in zip(layers, cut.names, strict=False)
        ]
        if head == "local":
            blocks[-1] = LocalBlock(
                layers[-1], OutputGoodness(), deepcopy(objective), recompute=recompute, title=cut.names[-1]
            )
        for block in blocks[:frozen]:
            block.requires_grad_(False)
            block.goodness = block.loss = None
        if channels_last:
            net.to(memory_format=torch.channels_last)
        voting = len(blocks) - frozen - (head == "local")
        network = LocalNetwork(
            blocks, input_shape, num_classes, part(readout) or MeanReadout(range(voting) if voting else None)
        )
        super().__init__(network, **kwargs)
        if self.hparams.get("weights") is not None:
            self.hparams["weights"] = None  # a checkpoint of this learner has its own
        self._model = [net]  # no submodule: the blocks hold its parameters already

    def reset_heads(self, num_classes: int) -> None:
        """Draw the auxiliary heads and the model's classifier anew, for other classes; the rest stays as trained."""
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: must be at least 2")
        name = classifier(self.model)
        old = self.model.get_submodule(name)
        new = nn.Linear(old.in_features, num_classes, old.bias is not None).to(old.weight)  # type: ignore[arg-type]
        for root in (self.model, *(block.layers for block in self.blocks)):
            if any(module is old for module in root.modules()):
                root.set_submodule(name, new)
        self.network.reset_heads(num_classes)
        self.hparams["num_classes"] = num_classes
        self._build_metrics()

    @property
    def model(self) -> nn.Module:
        """The network that was given, with the weights as trained: `model.state_dict()` has its own keys."""
        return self._model[0]
