"""TRGL (arXiv 2210.00949, 2309.17357): greedy training of modules that move their input as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from torch import nn

from lightning_ff.blocks import LocalBlock, Partition
from lightning_ff.cut import CutNetworkLearner, check_extra, check_output, cut_network, loss_for
from lightning_ff.objectives import ConvHead, Goodness, LocalLoss, OutputGoodness, TransportCost
from lightning_ff.readouts import LastReadout
from lightning_ff.spec import part
from lightning_ff.validate import check_flag, check_int, check_ints, check_type


class TRGL(CutNetworkLearner):
    """Transport-regularised greedy learning: each module learns a classifier and pays for moving its input.

    A module is one or several consecutive blocks with one auxiliary classifier. Its loss is the cross-entropy plus
    `mean((h - x)^2) / (2 tau)` of every block that keeps its shape, :class:`~lightning_ff.objectives.TransportCost`.
    Nothing is inserted between blocks, which would destroy `h - x`. The last module has the model's own classifier and
    predicts. All modules learn in every batch (*parallel*); :class:`~lightning_ff.GreedySchedule` trains one after
    another (*sequential*), and with `laps` several times (*multi-lap*). The Uzawa variant is left out.

    Args:
        model: Name of a classification model of torchvision, or any module, such as :class:`~lightning_ff.ResidualMLP`.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        cuts: How the network is cut, see :func:`~lightning_ff.blocks.partition`; the last block is the classifier.
        tau: Time step, on the mean over all elements. None is no transport cost: plain greedy learning, a control.
        halve: Use `tau / 2` in the first half of the modules, as the papers do.
        modules: Number of modules, of nearly equal numbers of blocks, or the number of blocks in each, counted without
            frozen blocks and the classifier. None is one block per module, where a stem that changes the shape belongs
            to the first module. The classifier belongs to the last module.
        goodness: Auxiliary classifier of every module but the last; None is `ConvHead()`, linear for flat activations.
        loss: Loss of every module; None is the cross-entropy. The papers use `CrossEntropy(label_smoothing=0.1)` in
            parallel training.
        weights: Initial weights, see :func:`~lightning_ff.cut.backbone.backbone`.
        frozen: Number of leading blocks that do not learn, such as 1 for a fixed encoder.
        channels_last: Keep the weights in torch's channels-last memory format.
        recompute: Recompute intermediate activations in the backward: less memory, more time.
        **kwargs: See :class:`~lightning_ff.learner.LocalLearner`.

    Raises:
        ValueError: an argument does not fit, or no block that learns keeps its shape; the message names it.
        TypeError: an argument is not of the annotated type.

    Example::

        >>> from lightning_ff import ResidualMLP
        >>> model = TRGL(ResidualMLP(10, inputs=64, width=32, blocks=4), 10, (1, 8, 8), tau=0.1, modules=[3, 2])
        >>> [segment.name for segment in model.segmentation.every]
        ['block00-02', 'block03-05']
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        input_shape: Sequence[int],
        cuts: int | str | list[str] = "blocks",
        tau: float | None = 1.0,
        halve: bool = True,
        modules: int | list[int] | None = None,
        goodness: Goodness | None = None,
        loss: LocalLoss | None = None,
        weights: str | None = None,
        frozen: int = 0,
        channels_last: bool = False,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        check_extra("TRGL", kwargs)
        if "segments" in kwargs:
            raise ValueError(f"segments={kwargs['segments']!r}: TRGL sets them by modules={modules}, leave them out")
        check_flag("halve", halve)
        measure, objective = ConvHead() if goodness is None else part(goodness), loss_for(loss)
        check_type("goodness", measure, Goodness, "give a Goodness of class mode, such as ConvHead()")
        net, cut = cut_network(model, num_classes, input_shape, cuts, weights, frozen)
        check_output(net, cut, num_classes)
        keeps = _keeps_shape(cut, input_shape, frozen)
        if tau is not None and not any(keeps):
            raise ValueError(
                f"tau={tau}: no block of {type(net).__name__} keeps its input's shape: give another model, or tau=None"
            )
        sizes = _sizes(modules, keeps, frozen)
        terms = _terms(tau, halve, sizes, keeps)
        heads = [*(deepcopy(measure) for _ in cut.names[1:]), OutputGoodness()]
        blocks = [
            LocalBlock(layer, head, deepcopy(objective), terms=costs, recompute=recompute, title=title)
            for layer, head, costs, title in zip(cut, heads, terms, cut.names, strict=True)
        ]
        segments = [*[1] * frozen, *sizes]
        super().__init__(
            net, blocks, input_shape, num_classes, LastReadout(), frozen, channels_last, segments=segments, **kwargs
        )


def _keeps_shape(cut: Partition, input_shape: Sequence[int], frozen: int) -> list[bool]:
    """Whether each block learns with an activation of its input's shape; False for the classifier."""
    if len(cut) < 2 or not 0 <= frozen < len(cut) - 1:
        raise ValueError(
            f"frozen={frozen} of {len(cut)} blocks: must be at least 0 and leave a block before the classifier to "
            "learn; cuts=... sets the blocks"
        )
    assert cut.measured is not None
    shapes = [tuple(input_shape), *(tuple(measured.shapes[0]) for measured in cut.measured)]
    learns = [frozen <= k < len(cut) - 1 for k in range(len(cut))]
    return [shapes[k] == shapes[k + 1] and learns[k] for k in range(len(cut))]


def _sizes(modules: int | list[int] | None, keeps: list[bool], frozen: int) -> list[int]:
    """Number of blocks in each module; the classifier is counted in the last one."""
    count = len(keeps) - 1 - frozen
    remedy = f"give a number of modules from 1 to {count}, or the blocks in each, {count} in all, at least 1 in each"
    if modules is None:
        stem = int(frozen == 0 and not keeps[0] and count > 1)
        sizes = [1 + stem, *[1] * (count - 1 - stem)]
    elif isinstance(modules, (list, tuple)):
        check_ints("modules", modules, remedy)
        sizes = list(modules)
    else:
        check_int("modules", modules, remedy)
        sizes = [count // modules + (i < count % modules) for i in range(modules)] if 1 <= modules <= count else []
    if min(sizes, default=0) < 1 or sum(sizes) != count:
        raise ValueError(f"modules={modules}: {remedy}")
    return [*sizes[:-1], sizes[-1] + 1]


def _terms(tau: float | None, halve: bool, sizes: list[int], keeps: list[bool]) -> list[list[TransportCost]]:
    """The transport cost of every block that keeps its shape, with half the step in the first half of the modules."""
    if tau is None:
        return [[] for _ in keeps]
    costs = TransportCost(tau), TransportCost(tau / 2)  # blocks copy them
    halved = len(keeps) - sum(sizes[len(sizes) // 2 :]) if halve else 0
    return [[costs[k < halved]] if kept else [] for k, kept in enumerate(keeps)]
