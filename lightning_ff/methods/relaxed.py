"""Networks that learn from signals of a relaxation in place of backprop: presets of `Backprop` with a credit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_ff.credit import ActivationRelaxation, BlockADMM, Credit, PredictiveCoding
from lightning_ff.methods.backprop import Backprop
from lightning_ff.spec import part
from lightning_ff.validate import check_type


class _RelaxedNet(Backprop):
    """A network with a credit of its own by default."""

    default: type[Credit]

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        input_shape: Sequence[int],
        credit: Credit | None = None,
        **kwargs: Any,
    ) -> None:
        given = self.default() if credit is None else part(credit)
        name = self.default.__name__
        check_type("credit", given, self.default, f"give {name}(), or another method for another credit")
        super().__init__(model, num_classes, input_shape, credit=given, **kwargs)


class ActivationRelaxationNet(_RelaxedNet):
    """Activation relaxation on any network that is cut where one tensor passes (Millidge et al., arXiv 2009.05359).

    Args:
        model: Name of a classification model of torchvision, or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        credit: The relaxation; None is :class:`~lightning_ff.ActivationRelaxation` with its defaults.
        **kwargs: See :class:`~lightning_ff.Backprop`.
    """

    default = ActivationRelaxation


class PredictiveCodingNet(_RelaxedNet):
    """Predictive coding on any network that is cut where one tensor passes (Millidge et al., arXiv 2010.01047).

    Args:
        model: Name of a classification model of torchvision, or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        credit: The relaxation; None is :class:`~lightning_ff.PredictiveCoding` with its defaults.
        **kwargs: See :class:`~lightning_ff.Backprop`.
    """

    default = PredictiveCoding


class BlockADMMNet(_RelaxedNet):
    """Stochastic block-ADMM on any network that is cut where one tensor passes (arXiv 2105.00339).

    Args:
        model: Name of a classification model of torchvision, or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        credit: The relaxation; None is :class:`~lightning_ff.BlockADMM` with its defaults.
        **kwargs: See :class:`~lightning_ff.Backprop`.
    """

    default = BlockADMM
