"""Readouts: per-block scores or features become class scores of the network.

Shapes: N samples, C classes, K blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_ff.validate import check_ints, check_type

_SWITCH = "choose True or False"


class Readout(nn.Module):
    """Base of all readouts: override `contributions`, one `(N, C)` per block; their sum is the network's answer.

    Attributes:
        needs: "scores" (per-block class scores) or "features" (what each block hands on).
        view: What a learning readout learns from in pair mode: the image with the "neutral" label, in a pass of its
            own, or the "positive" rows of the sweep. It always predicts from the neutral view. Class mode has one view.
        takes_some: Joins the scores of any number of blocks, so that those that have not begun to learn are left out.
    """

    needs: Literal["scores", "features"] = "scores"
    view: Literal["neutral", "positive"] = "neutral"
    takes_some: bool = False

    def build(self, shapes: Sequence[torch.Size], num_classes: int) -> None:
        """Create parameters for the blocks whose outputs come, given their shapes without the batch axis."""

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        """Each block's share of the answer, `(N, C)`; blocks that are left out do not appear."""
        raise TypeError(f"{type(self).__name__} must override contributions(outputs)")

    def block_scores(self, outputs: list[Tensor]) -> list[Tensor]:
        """Class scores `(N, C)` of each block on its own, for per-block metrics."""
        return outputs

    def observe(self, outputs: list[Tensor], label: Tensor) -> None:
        """See the outputs of a validation batch during `fit`, for a readout that is fitted to them."""

    def fit(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """End of a validation during `fit`; `reduce` sums a tensor over all processes."""

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """Map the blocks' scores, or features, to class scores `(N, C)`."""
        return torch.stack(self.contributions(outputs)).sum(0)


def _kept(outputs: list[Tensor], skip_first: bool) -> list[Tensor]:
    return outputs[1:] if skip_first and len(outputs) > 1 else outputs


class SumReadout(Readout):
    """Sum of the blocks' goodness (arXiv 2212.13345, section 3.3).

    Args:
        skip_first: Leave the first block out, as Hinton does.

    Raises:
        TypeError: skip_first is neither True nor False.

    Example::

        >>> scores = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])]
        >>> SumReadout()(scores)
        tensor([[4., 3.]])
        >>> SumReadout(skip_first=True)(scores)
        tensor([[3., 1.]])
    """

    takes_some = True

    def __init__(self, skip_first: bool = False) -> None:
        super().__init__()
        check_type("skip_first", skip_first, bool, _SWITCH)
        self.skip_first = skip_first

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        return _kept(outputs, self.skip_first)


class SoftmaxReadout(SumReadout):
    """Softmax over the classes per block, then the sum: every block has one vote (arXiv 2305.18353).

    Args:
        skip_first: Leave the first block out.

    Raises:
        TypeError: skip_first is neither True nor False.
    """

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        return [scores.softmax(1) for scores in super().contributions(outputs)]


class LastReadout(Readout):
    """The last block's scores."""

    takes_some = True

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        return outputs[-1:]


class MeanReadout(Readout):
    """Mean of the blocks' scores (arXiv 2501.03176), over all blocks or some.

    Args:
        blocks: Places of the blocks that count, among those with a goodness, negative ones from the end; None takes
            all.
        softmax: Average the softmax over the classes, so that every block has the same weight.

    Raises:
        ValueError: a place that no block has, or none at all.
        TypeError: blocks are no list of whole numbers, or softmax is neither True nor False.

    Example::

        >>> scores = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])]
        >>> MeanReadout()(scores)
        tensor([[2.0000, 1.5000]])
        >>> MeanReadout(blocks=[-1])(scores)
        tensor([[3., 1.]])
    """

    def __init__(self, blocks: Sequence[int] | None = None, softmax: bool = False) -> None:
        super().__init__()
        if blocks is not None:
            check_ints("blocks", blocks, "give a list of places, such as [0, -1], or None for all")
            if not blocks:
                raise ValueError("blocks=[]: name at least one block, or None for all")
        check_type("softmax", softmax, bool, _SWITCH)
        self.blocks = None if blocks is None else list(blocks)
        self.softmax = softmax
        self.takes_some = blocks is None

    def build(self, shapes: Sequence[torch.Size], num_classes: int) -> None:
        for place in self.blocks or []:
            if not -len(shapes) <= place < len(shapes):
                raise ValueError(f"blocks={self.blocks}: there is no block {place} among {len(shapes)}")

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        kept = outputs if self.blocks is None else [outputs[k] for k in self.blocks]
        return [(scores.softmax(1) if self.softmax else scores) / len(kept) for scores in kept]


class IntervalReadout(Readout):
    """Mean over the consecutive blocks that predict best together, found on the validation data.

    Every validation during `fit` counts the hits of all intervals of blocks and keeps the best from then on; it is
    saved with the weights. Until the first one all blocks count, and each validation is scored with the interval
    found before it. A fit without validation data leaves it as it is, and warns.

    Args:
        softmax: Average the softmax over the classes, so that every block has the same weight.

    Raises:
        TypeError: softmax is neither True nor False.
    """

    share: Tensor
    hits: Tensor

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        check_type("softmax", softmax, bool, _SWITCH)
        self.softmax = softmax

    def build(self, shapes: Sequence[torch.Size], num_classes: int) -> None:
        self.register_buffer("share", torch.full((len(shapes),), 1 / len(shapes)))
        self.register_buffer("hits", torch.zeros(len(shapes), len(shapes), dtype=torch.long), persistent=False)

    def _votes(self, outputs: list[Tensor]) -> list[Tensor]:
        return [scores.softmax(1) if self.softmax else scores for scores in outputs]

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        shares = zip(self.share, self._votes(outputs), strict=True)
        return [torch.where(share > 0, share * scores, 0.0) for share, scores in shares]  # 0 * inf would be NaN

    def observe(self, outputs: list[Tensor], label: Tensor) -> None:
        votes = torch.stack(self._votes(outputs))
        for start in range(len(votes)):
            joined = torch.zeros_like(votes[0])  # no cumsum, of which CUDA has no deterministic form
            for end in range(start, len(votes)):
                joined = joined + votes[end]
                self.hits[start, end] += (joined.argmax(1) == label).sum()

    def fit(self, reduce: Callable[[Tensor], Tensor]) -> None:
        hits = reduce(self.hits)
        start, end = divmod(int(hits.argmax()), len(hits))
        self.share.zero_()[start : end + 1] = 1 / (end + 1 - start)
        self.hits.zero_()

    @property
    def interval(self) -> tuple[int, int]:
        """Places of the first and the last block that count."""
        kept = self.share.nonzero().flatten().tolist()
        return kept[0], kept[-1]


class LinearReadout(Readout):
    """One linear layer on the detached, normalised features of the blocks, learning beside them.

    Hinton's one-pass classifier (arXiv 2212.13345, section 3.3): the image carries the neutral label. Its own
    optimizer is named "readout" in `block_optimizers`.

    Args:
        skip_first: Leave the first block's features out, as Hinton does.
        view: "neutral" costs one more forward pass a step; "positive" costs none and is the same where the input
            carries no label (`labels=Unlabelled`).

    Raises:
        ValueError: view is none of these.
        TypeError: skip_first is neither True nor False.
    """

    needs: Literal["scores", "features"] = "features"

    def __init__(self, skip_first: bool = True, view: Literal["neutral", "positive"] = "neutral") -> None:
        super().__init__()
        if view not in ("neutral", "positive"):
            raise ValueError(f"view={view!r}: choose 'neutral' or 'positive'")
        check_type("skip_first", skip_first, bool, _SWITCH)
        self.skip_first = skip_first
        self.view = view
        self.linear = nn.ModuleList()

    def build(self, shapes: Sequence[torch.Size], num_classes: int) -> None:
        sizes = [shape.numel() for shape in shapes]
        sizes = sizes[1:] if self.skip_first and len(sizes) > 1 else sizes
        self.linear = nn.ModuleList(nn.Linear(size, num_classes, bias=k == 0) for k, size in enumerate(sizes))

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        kept = _kept(outputs, self.skip_first)
        return [linear(h.flatten(1)) for linear, h in zip(self.linear, kept, strict=True)]

    def block_scores(self, outputs: list[Tensor]) -> list[Tensor]:
        return self.contributions(outputs)
