"""predsim (Nøkland & Eidnes, arXiv 1901.06656): every layer predicts the class and matches similarities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_ff.cut import Head, check_own
from lightning_ff.methods.scalable_forward_forward import ScalableForwardForward
from lightning_ff.objectives import CrossEntropy, LinearGoodness, OutputGoodness, SimilarityMatching, WeightedLosses
from lightning_ff.readouts import LastReadout, Readout
from lightning_ff.spec import part
from lightning_ff.validate import check_number


class PredSim(ScalableForwardForward):
    """Local error signals "predsim" (Nøkland & Eidnes, ICML 2019, arXiv 1901.06656).

    The loss of a block is `(1 - share) CE(P h, y) + share MSE(S(Q h), S(onehot(y)))`, with a linear classifier P, a
    projection Q, and S the matrix of similarities of the batch, see :class:`~lightning_ff.SimilarityMatching`. The
    model's classifier learns from its own cross-entropy on detached features, and predicts.

    As published, h is the activation before dropout. Here it is the block's output, so a dropout layer of the model
    that ends a block acts before both losses.

    Args:
        model: Name of a classification model of torchvision, such as "resnet18", or any module.
        num_classes: Number of classes.
        input_shape: Shape of one input, without the batch axis.
        cuts: How the network is cut, see :func:`~lightning_ff.blocks.partition`.
        share: Weight of the similarities, in [0, 1]; the classification has the rest.
        max_features: Average maps before the classification to at most as many features; None leaves them.
        head: The model's own classifier, see :class:`ScalableForwardForward`.
        readout: Combines the blocks' scores; None is the last block's.
        **kwargs: See :class:`ScalableForwardForward`; nothing is inserted between blocks.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.

    Example::

        >>> from lightning_ff import MLP
        >>> model = PredSim(MLP(10, inputs=64, widths=[32, 16]), num_classes=10, input_shape=(1, 8, 8))
        >>> [type(block.goodness).__name__ for block in model.blocks]
        ['LinearGoodness', 'LinearGoodness', 'OutputGoodness']
    """

    def __init__(
        self,
        model: str | nn.Module,
        num_classes: int,
        input_shape: Sequence[int],
        cuts: int | str | list[str] = "layers",
        share: float = 0.99,
        max_features: int | None = 2048,
        head: Head = "local",
        readout: Readout | None = None,
        **kwargs: Any,
    ) -> None:
        check_number("share", share, "must lie in [0, 1]", least=0)
        if share > 1:
            raise ValueError(f"share={share}: must lie in [0, 1]")
        check_own(type(self).__name__, kwargs, "goodness", "loss", "terms", "normalization")
        super().__init__(
            model,
            num_classes,
            input_shape,
            cuts=cuts,
            goodness=LinearGoodness(max_features=max_features),
            loss=WeightedLosses([CrossEntropy()], [1 - share]),
            terms=[SimilarityMatching(share)],
            normalization="none",
            head=head,
            readout=LastReadout() if readout is None else part(readout),
            **kwargs,
        )
        if isinstance(self.blocks[-1].goodness, OutputGoodness):
            self.blocks[-1].loss = CrossEntropy()
