"""CaFo, the cascaded forward algorithm (arXiv 2303.09728): fixed blocks, each with its own predictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from lightning_ff.blocks import Normalize
from lightning_ff.cut import CutNetworkLearner, check_extra, cut_network, measured_blocks
from lightning_ff.objectives import CrossEntropy, LinearGoodness, SolvedGoodness, Sparsemax, SquaredError
from lightning_ff.readouts import Readout, SoftmaxReadout, SparsemaxReadout
from lightning_ff.spec import part
from lightning_ff.validate import check_choice

Predictor = Literal["mse", "ce", "sparsemax"]


class CaFo(CutNetworkLearner):
    """Cascaded forward (CaFo, arXiv 2303.09728): blocks keep their weights, and a linear predictor of each learns.

    The blocks are random ("Rand"), or trained before by direct feedback alignment ("DFA"): fit
    `Backprop(model, ..., credit=DirectFeedback())`, and give its checkpoint as `weights`. The network predicts by the
    sum of the predictors' probabilities. Predictors have no bias.

    With "mse" every predictor is a ridge regression in closed form, see :class:`~lightning_ff.SolvedGoodness`: one
    epoch suffices for all blocks at once. The released code takes a pseudo-inverse, and normalises test data by the
    statistics of the test set. Here batch norm keeps the statistics that the model comes with; of a new one, it is the
    identity.

    Args:
        model: Name of a classification model of torchvision, or any module; published is
            `ConvNet(num_classes, widths=[32, 128, 512], pools=[0, 1, 2])` but for its batch norm. Its classifier is
            left out.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        cuts: How the network is cut, see :func:`~lightning_ff.blocks.partition`.
        predictor: "mse" is solved; "ce" (cross-entropy) and "sparsemax" learn by the optimizer.
        ridge: Weight of the squared norm of an "mse" predictor, above 0; None is 1.
        readout: Combines the blocks' scores; None is the sum of softmax, or with "sparsemax" of sparsemax.
        weights: Initial weights, see :func:`~lightning_ff.cut.backbone.backbone`.
        channels_last: Keep the weights in torch's channels-last memory format.
        **kwargs: See :class:`~lightning_ff.learner.LocalLearner`.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.

    Example::

        >>> from lightning_ff import ConvNet
        >>> model = CaFo(ConvNet(10, channels=1, widths=[8, 16]), num_classes=10, input_shape=(1, 8, 8))
        >>> [tuple(block.goodness.weight.shape) for block in model.blocks]
        [(128, 10), (256, 10)]
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        input_shape: Sequence[int],
        cuts: int | str | list[str] = "blocks",
        predictor: Predictor = "mse",
        ridge: float | None = None,
        readout: Readout | None = None,
        weights: str | None = None,
        channels_last: bool = False,
        **kwargs: Any,
    ) -> None:
        check_extra("CaFo", kwargs)
        check_choice("predictor", predictor, ("mse", "ce", "sparsemax"))
        if ridge is not None and predictor != "mse":
            raise ValueError(f"ridge={ridge} with predictor={predictor!r}: acts on 'mse' alone, leave it out")
        if kwargs.get("segments", "local") != "local" or kwargs.get("credit") is not None:
            given = f"segments={kwargs.get('segments')!r}, credit={kwargs.get('credit')}"
            raise ValueError(f"{given}: the predictors of CaFo learn one by one, leave them out")
        objective = {"mse": SquaredError(), "ce": CrossEntropy(), "sparsemax": Sparsemax()}[predictor]
        solved = SolvedGoodness(1.0 if ridge is None else ridge)
        goodness = solved if predictor == "mse" else LinearGoodness(bias=False)
        net, cut = cut_network(model, num_classes, input_shape, cuts, weights, 0)
        unchanged = Normalize("none")
        blocks = measured_blocks(net, cut, num_classes, cuts, "none", goodness, objective, unchanged, fixed=True)
        default = SparsemaxReadout if predictor == "sparsemax" else SoftmaxReadout
        combined = default() if readout is None else part(readout)
        super().__init__(net, blocks, input_shape, num_classes, combined, 0, channels_last, **kwargs)
