"""Hinton's Forward-Forward (arXiv 2212.13345), and pair-mode variants of it with other parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from math import prod
from typing import Any

from torch import nn

from lightning_ff.blocks import LocalBlock, Normalize, mlp
from lightning_ff.blocks.mlp import ActivationName
from lightning_ff.blocks.normalization import Normalization
from lightning_ff.cut import without_inner_goodness
from lightning_ff.labels import LabelEncoding, PixelOverlay
from lightning_ff.learner import LocalLearner
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import Goodness, LocalLoss, MeanSquare, Term, ThresholdLoss
from lightning_ff.readouts import Readout, SumReadout
from lightning_ff.spec import part
from lightning_ff.validate import check_int, check_ints, check_type


class ForwardForward(LocalLearner):
    """Forward-Forward: every block separates positives and negatives by its goodness (arXiv 2212.13345).

    Give `widths` for fully connected layers, or `blocks` for any list of modules.

    Args:
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        widths: Units of each fully connected layer.
        blocks: Any modules instead, in order; they are not saved in checkpoints, so loading needs them again.
        activation: Non-linearity after each fully connected layer, for `widths`.
        full_gradient: Pass gradients through inactive ReLU units, for `widths`. With squared goodness it has an effect
            only together with another term, such as :class:`~lightning_ff.objectives.PeerNormalization`.
        dropout: Probability of dropping an activation, in [0, 1), for `widths`.
        goodness: Goodness of every block; None is the mean of squares.
        loss: Local loss of every block; None is the softplus around a threshold on the scale of the goodness.
        normalization: Normalisation of blocks' outputs and of the encoded input: "l2", "rms", "layer" or "none".
        terms: Terms added to every block's loss.
        labels: Label encoding; None overwrites the first pixels.
        readout: Combines the blocks' scores; None is the sum of goodness over all blocks.
        scan_memory: Limit in MiB on the largest activation of a class scan.
        **kwargs: See :class:`~lightning_ff.learner.LocalLearner`.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.

    Example::

        >>> model = ForwardForward(num_classes=10, input_shape=(1, 8, 8), widths=[32, 16])
        >>> import torch
        >>> model(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 10])
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: Sequence[int],
        widths: Sequence[int] | None = None,
        blocks: Iterable[nn.Module] | None = None,
        activation: ActivationName = "relu",
        full_gradient: bool = False,
        dropout: float = 0.0,
        goodness: Goodness | None = None,
        loss: LocalLoss | None = None,
        normalization: Normalization = "rms",
        terms: list[Term] | None = None,
        labels: LabelEncoding | None = None,
        readout: Readout | None = None,
        scan_memory: float = 256.0,
        **kwargs: Any,
    ) -> None:
        labels = _or_default(part(labels), PixelOverlay)
        measure, objective = _or_default(part(goodness), MeanSquare), _or_default(part(loss), ThresholdLoss)
        check_type("labels", labels, LabelEncoding, "give a label encoding, such as PixelOverlay()")
        check_type("goodness", measure, Goodness, "give a Goodness, such as MeanSquare()")
        check_type("loss", objective, LocalLoss, "give a LocalLoss, such as ThresholdLoss()")
        check_type("terms", [] if terms is None else terms, (list, tuple), "give a list, such as [PeerNormalization()]")
        check_int("num_classes", num_classes)
        check_ints("input_shape", input_shape, "give the shape of one input, such as (1, 28, 28)")
        if (widths is None) == (blocks is None):
            raise ValueError(
                f"widths={widths}, blocks={blocks}: give one of the two; a checkpoint holds no blocks, so give them to "
                "load_from_checkpoint again"
            )
        if widths is not None:
            check_ints("widths", widths, "give the units of every layer, such as [500, 500]")
            inputs = prod(labels.build(num_classes, input_shape))
            layers: list[nn.Module] = list(mlp(inputs, widths, activation, full_gradient, dropout))
        else:
            check_type("blocks", blocks, Iterable, "give a list of modules")
            _only_with_widths(
                activation=(activation, "relu"), full_gradient=(full_gradient, False), dropout=(dropout, 0)
            )
            layers = list(blocks or [])
            for i, module in enumerate(layers):
                check_type(f"blocks[{i}]", module, nn.Module, "give a module, such as nn.Sequential(...)")
        if measure.mode != "pair":
            raise ValueError(f"goodness={measure}: Forward-Forward compares pairs, give a goodness of pair mode")
        stack = [
            LocalBlock(
                layer,
                deepcopy(measure),
                deepcopy(objective),
                Normalize(normalization),
                [deepcopy(term) for term in part(list(terms or []))],
            )
            for layer in layers
        ]
        without_inner_goodness(stack, kwargs)
        network = LocalNetwork(
            stack,
            input_shape,
            num_classes,
            readout=_or_default(part(readout), SumReadout),
            labels=labels,
            input_normalization=Normalize(normalization),
            scan_memory=scan_memory,
        )
        super().__init__(network, **kwargs)


def _only_with_widths(**arguments: tuple[Any, Any]) -> None:
    """Check that arguments of fully connected layers, as (value, default), are not given together with `blocks`."""
    for name, (value, default) in arguments.items():
        if value != default:
            raise ValueError(
                f"{name}={value!r} with blocks=...: acts on the layers that widths makes, put it into the blocks, or "
                "leave it out"
            )


def _or_default(given: Any, default: type[nn.Module]) -> Any:
    """The given part, or a default for None; not `or`, since an empty module container is false."""
    return default() if given is None else given
