"""CwC, channel-wise competitive learning (arXiv 2312.12668): groups of channels compete, without negatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lightning_ff.blocks import LocalBlock
from lightning_ff.cut import loss_for
from lightning_ff.learner import LocalLearner
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import ChannelGoodness, LocalLoss
from lightning_ff.readouts import LastReadout, Readout
from lightning_ff.spec import part
from lightning_ff.validate import check_flag, check_image_shape, check_ints, check_type

_ADAM: Any = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}}


class CwC(LocalLearner):
    """Channel-wise competitive learning, CwC (Papachristodoulou et al., AAAI 2024, arXiv 2312.12668): class mode.

    A block is a 3x3 convolution, ReLU, a max-pooling by 2 in every second block, and batch norm. Its channels are
    divided into one group per class, whose mean square is the class's goodness. Published losses are `CrossEntropy()`
    (CwC), `OwnAgainstOthers(2.0)` (PvN) and `WeightedLosses([...], [0.28, 0.72])` of both (CWG). The published
    schedules are :class:`~lightning_ff.ILT`. Blocks outside their window are in eval mode here; in the released code
    their batch norm goes on moving its statistics, twice per batch.

    Args:
        num_classes: Number of classes.
        input_shape: Shape of one input `(C, H, W)`.
        channels: Channels of each convolution, multiples of the number of its classes.
        grouped: Every second convolution has one group of input channels per class (CFSE); otherwise none (FFCNN).
        loss: Local loss of every block; None is the cross-entropy.
        class_maps: For each block its coarser classes, as `class_map` of :class:`~lightning_ff.LocalBlock`, or None;
            published for CIFAR-100: `label // 5` in the first four of six blocks.
        readout: Combines the blocks' scores; None is the last block's goodness (Gd). `LinearReadout(blocks=[-1])` is
            the published softmax head (Sf), with one softmax in its loss and not two.
        optimizer: Factory of one optimizer per block; the default is the published Adam with a rate of 0.01.
        **kwargs: See :class:`~lightning_ff.learner.LocalLearner`.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.

    Example::

        >>> model = CwC(num_classes=10, input_shape=(1, 8, 8), channels=[20, 40])
        >>> model.blocks[1].layers[0]
        Conv2d(20, 40, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=10)
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: Sequence[int],
        channels: Sequence[int] = (20, 80, 240, 480),
        grouped: bool = True,
        loss: LocalLoss | None = None,
        class_maps: Sequence[Sequence[int] | None] | None = None,
        readout: Readout | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = _ADAM,
        **kwargs: Any,
    ) -> None:
        check_image_shape(num_classes, input_shape)
        check_ints("channels", channels, "give the channels of every convolution, such as [20, 80, 240, 480]")
        check_flag("grouped", grouped)
        maps = [None] * len(channels) if class_maps is None else class_maps
        check_type("class_maps", maps, Sequence, "give one map, or None, for every block")
        if len(maps) != len(channels):
            raise ValueError(f"class_maps has {len(maps)} entries for {len(channels)} blocks: give one for each")
        for k, each in enumerate(maps):
            if each is not None:
                check_ints(
                    f"class_maps[{k}]", each, "give the coarser class of every class, such as [0, 0, 1], or None"
                )
        objective = loss_for(loss)
        inputs = [input_shape[0], *channels]
        classes = [len(set(each)) if each else num_classes for each in maps]
        blocks = [
            LocalBlock(
                _layers(k, inputs[k : k + 2], classes[k], grouped), ChannelGoodness(), objective, class_map=maps[k]
            )
            for k in range(len(channels))
        ]
        combined = LastReadout() if readout is None else part(readout)
        super().__init__(LocalNetwork(blocks, input_shape, num_classes, combined), optimizer=optimizer, **kwargs)


def _layers(index: int, channels: Sequence[int], classes: int, grouped: bool) -> nn.Sequential:
    """Layers of a block; every second one has a grouped convolution, and a pooling."""
    inputs, outputs = channels
    second = index % 2 == 1
    if outputs < 1 or outputs % classes or (second and grouped and inputs % classes):
        raise ValueError(
            f"channels={outputs} of block {index}, after {inputs}: give multiples of its {classes} classes"
        )
    groups = classes if grouped and second else 1
    pool = [nn.MaxPool2d(2)] if second else []
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)
    return nn.Sequential(convolution, nn.ReLU(), *pool, nn.BatchNorm2d(outputs, eps=1e-4))
