"""Base of methods on a network that is cut into blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from typing_extensions import Self, override

from lightning_ff._torch import buffers_of
from lightning_ff.blocks import LocalBlock, Partition, partition
from lightning_ff.cut.backbone import Classifier, backbone, classifier
from lightning_ff.cut.cautions import warn_of_still
from lightning_ff.learner import LocalLearner
from lightning_ff.learner.hparams import remember_instead
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import CrossEntropy, LocalLoss, OutputGoodness
from lightning_ff.readouts import LastReadout, MeanReadout, Readout
from lightning_ff.spec import part
from lightning_ff.sweep.segments import last_blocks
from lightning_ff.validate import check_int, check_ints, check_type

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def cut_network(
    model: str | nn.Module,
    num_classes: int,
    input_shape: Sequence[int],
    cuts: int | str | list[str],
    weights: str | None,
    frozen: int,
) -> tuple[nn.Module, Partition]:
    """The model with its weights, and its blocks.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.
    """
    check_int("num_classes", num_classes)
    check_ints("input_shape", input_shape, "give the shape of one input, such as (3, 32, 32)")
    check_int("frozen", frozen)
    net = backbone(part(model), num_classes, input_shape, weights)
    return net, partition(net, cuts, input_shape=input_shape)


def loss_for(loss: LocalLoss | None) -> LocalLoss:
    """The loss given, or the cross-entropy."""
    objective = CrossEntropy() if loss is None else part(loss)
    check_type("loss", objective, LocalLoss, "give a LocalLoss, such as CrossEntropy()")
    return cast(LocalLoss, objective)


class CutNetworkLearner(LocalLearner):
    """A learner on a network that was cut into blocks; the network itself is available as `model`.

    Args:
        model: The network whose parameters the blocks share.
        blocks: Its blocks.
        input_shape: Shape of one input, without the batch axis.
        num_classes: Number of classes.
        readout: Combines the blocks' scores; None is the last block's with segments="last", where it alone has a loss,
            else the mean over all blocks that learn (the last ones of segments), except the model's classifier.
        frozen: Number of leading blocks that do not learn and have no goodness.
        channels_last: Keep the weights in torch's channels-last memory format.
        **kwargs: See :class:`~lightning_ff.learner.LocalLearner`.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[LocalBlock],
        input_shape: Sequence[int],
        num_classes: int,
        readout: Readout | None,
        frozen: int,
        channels_last: bool,
        **kwargs: Any,
    ) -> None:
        for name, value in {"channels_last": channels_last, "recompute": blocks[-1].recompute}.items():
            check_type(name, value, bool, "choose True or False")
        if not 0 <= frozen < len(blocks):
            raise ValueError(f"frozen={frozen}: must be at least 0 and leave one of the {len(blocks)} blocks to learn")
        for block in blocks[:frozen]:
            block.requires_grad_(False)
            block.goodness = block.loss = None
        segments = without_inner_goodness(blocks, kwargs)
        if channels_last:
            _to_channels_last(model)
        combined = readout if readout is not None else _default_readout(blocks[frozen:], segments)
        super().__init__(LocalNetwork(blocks, input_shape, num_classes, combined), **kwargs)
        warn_of_still(model, dict(zip(self.network.names[frozen:], self.blocks[frozen:], strict=True)))
        if self.hparams.get("weights") is not None:
            self.hparams["weights"] = None  # a checkpoint of this learner holds the weights
        self._model = [model]  # in a list, so not a submodule: the blocks hold its parameters

    @override
    def train(self, mode: bool = True) -> Self:
        """Set the mode of the blocks, and of the model's modules that are in no block."""
        super().train(mode)
        inside = set(self.modules())
        for module in self._model[0].modules():
            if module not in inside:
                module.training = mode
        return self

    @property
    def model(self) -> nn.Module:
        """The network that was given, with the weights as trained: `model.state_dict()` has its own keys."""
        model = self._model[0]
        for block in self.blocks:  # moving or casting creates new buffers
            for path, buffer in block.layers.named_buffers():
                owner, _, field = path.rpartition(".")
                try:
                    buffers = buffers_of(model.get_submodule(owner))
                except AttributeError:  # the block's own, such as a constant
                    continue
                if field in buffers:
                    buffers[field] = buffer
        return model

    def reset_heads(self, num_classes: int) -> None:
        """Reinitialise the auxiliary heads and the model's classifier, for another number of classes.

        Raises:
            ValueError: fewer than two classes, or the model has no classifier.
            TypeError: `num_classes` is not an integer.
        """
        check_int("num_classes", num_classes)
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: must be at least 2")
        name = classifier(self.model, self.network.input_shape)
        old = cast(Classifier, self.model.get_submodule(name))
        outputs = old.out_features if isinstance(old, nn.Linear) else old.out_channels
        used = isinstance(self.blocks[-1].goodness, OutputGoodness)
        if (used and outputs != self.num_classes) or is_parametrized(old):
            raise ValueError(
                f"reset_heads({num_classes}): {name}, the last layer of {type(self.model).__name__} to run, is no "
                f"plain classifier of {self.num_classes} classes: make the model anew, and load the weights"
            )
        new = _like(old, num_classes)
        for root in (self.model, *(block.layers for block in self.blocks)):
            if any(module is old for module in root.modules()):
                root.set_submodule(name, new)
        self.network.reset_heads(num_classes)
        self.hparams["num_classes"] = num_classes
        if getattr(self.model, "num_classes", None) == outputs:
            setattr(self.model, "num_classes", num_classes)  # noqa: B010  as a checkpoint describes it
        if not isinstance(self.hparams.get("model"), str):
            remember_instead(self, "model", self.model, self._chosen)
        self.renew_metrics()


def without_inner_goodness(blocks: Sequence[LocalBlock], arguments: Mapping[str, Any]) -> Any:
    """Remove goodness and loss of the blocks within a segment, which nothing uses; returns the argument `segments`."""
    segments = arguments.get("segments", "local")
    if not isinstance(segments, str):
        kept = last_blocks(segments, len(blocks))
        for block in (block for k, block in enumerate(blocks) if k not in kept):
            block.goodness = block.loss = None
    return segments


def _default_readout(learning: Sequence[LocalBlock], segments: Any) -> Readout:
    if segments == "last":
        return LastReadout()
    measuring = [block.goodness for block in learning if block.goodness is not None]
    auxiliary = sum(not isinstance(goodness, OutputGoodness) for goodness in measuring)
    return MeanReadout(range(auxiliary) if auxiliary else None)


def _to_channels_last(model: nn.Module) -> None:
    """Convert 4-d and 5-d weights to the channels-last memory format."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() in _CHANNELS_LAST:
            tensor.data = tensor.data.contiguous(memory_format=_CHANNELS_LAST[tensor.dim()])


def _like(old: Classifier, num_classes: int) -> nn.Module:
    """A new, randomly initialised layer like an old one, with another number of outputs."""
    new = deepcopy(old)
    size = {"weight": (num_classes, *old.weight.shape[1:]), "bias": (num_classes,)}
    for key, parameter in old.named_parameters():
        setattr(new, key, nn.Parameter(parameter.new_empty(size[key])))
    if isinstance(new, nn.Linear):
        new.out_features = num_classes
    else:
        new.out_channels = num_classes
    new.reset_parameters()
    return new
