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
    """Base of all readouts: override `contributions`, one `(N, C)` per block; their sum is the network's class scores.

    Attributes:
        needs: "scores" (per-block class scores) or "features" (normalised outputs of the blocks).
        view: Input that a readout with parameters learns from in pair mode: the image with the "neutral" label, in a
            separate pass, or the "positive" rows of the sweep. It predicts from the neutral view. Class mode has one
            view.
        takes_some: Combines the scores of any number of blocks, so that blocks that have not learned are left out.
    """

    needs: Literal["scores", "features"] = "scores"
    view: Literal["neutral", "positive"] = "neutral"
    takes_some: bool = False

    def build(self, shapes: Sequence[torch.Size], num_classes: int) -> None:
        """Create parameters for the blocks' outputs, given their shapes without the batch axis."""

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        """Each block's summand of the class scores, `(N, C)`; blocks that are left out are not in the list."""
        raise TypeError(f"{type(self).__name__} must override contributions(outputs)")

    def block_scores(self, outputs: list[Tensor]) -> list[Tensor]:
        """Class scores `(N, C)` of each block on its own, for per-block metrics."""
        return outputs

    def observe(self, outputs: list[Tensor], label: Tensor) -> None:
        """Called with the outputs of a validation batch during `fit`, for a readout that is fitted to them."""

    def fit(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Called at the end of a validation during `fit`; `reduce` sums a tensor over all processes."""

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """Map the blocks' scores, or features, to class scores `(N, C)`."""
        return torch.stack(self.contributions(outputs)).sum(0)


def _without_first(outputs: list[Tensor], skip_first: bool) -> list[Tensor]:
    return outputs[1:] if skip_first and len(outputs) > 1 else outputs


class SumReadout(Readout):
    """Sum of the blocks' goodness (arXiv 2212.13345, section 3.3).

    Args:
        skip_first: Leave the first block out, as Hinton does.

    Raises:
        TypeError: skip_first is not a bool.

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
        return _without_first(outputs, self.skip_first)


class SoftmaxReadout(SumReadout):
    """Sum of the softmax over classes of every block, so that blocks have equal weights (arXiv 2305.18353).

    Args:
        skip_first: Leave the first block out.

    Raises:
        TypeError: skip_first is not a bool.
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
        blocks: Indices of the averaged blocks, among those with a goodness, negative ones from the end; None is all.
        softmax: Average the softmax over the classes, so that every block has the same weight.

    Raises:
        ValueError: an index is out of range, or there is none.
        TypeError: blocks is not a list of integers, or softmax is not a bool.

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
        for k in self.blocks or []:
            if not -len(shapes) <= k < len(shapes):
                raise ValueError(f"blocks={self.blocks}: there is no block {k} among {len(shapes)}")

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        kept = outputs if self.blocks is None else [outputs[k] for k in self.blocks]
        return [(scores.softmax(1) if self.softmax else scores) / len(kept) for scores in kept]


class IntervalReadout(Readout):
    """Mean over the consecutive blocks that predict best together, found on the validation data.

    Every validation during `fit` counts the correct predictions of all intervals of blocks and selects the best one,
    which is saved with the weights. All blocks are used until the first validation, and each validation uses the
    interval selected before it. A fit without validation data does not change the interval, and warns.

    Args:
        softmax: Average the softmax over the classes, so that every block has the same weight.

    Raises:
        TypeError: softmax is not a bool.
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

    def _scores(self, outputs: list[Tensor]) -> list[Tensor]:
        return [scores.softmax(1) if self.softmax else scores for scores in outputs]

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        pairs = zip(self.share, self._scores(outputs), strict=True)
        return [torch.where(share > 0, share * scores, 0.0) for share, scores in pairs]  # 0 * inf would be NaN

    def observe(self, outputs: list[Tensor], label: Tensor) -> None:
        scores = torch.stack(self._scores(outputs))
        for start in range(len(scores)):
            total = torch.zeros_like(scores[0])  # no cumsum, of which CUDA has no deterministic form
            for end in range(start, len(scores)):
                total = total + scores[end]
                self.hits[start, end] += (total.argmax(1) == label).sum()

    def fit(self, reduce: Callable[[Tensor], Tensor]) -> None:
        hits = reduce(self.hits)
        start, end = divmod(int(hits.argmax()), len(hits))
        self.share.zero_()[start : end + 1] = 1 / (end + 1 - start)
        self.hits.zero_()

    @property
    def interval(self) -> tuple[int, int]:
        """Indices of the first and the last block of the interval."""
        kept = self.share.nonzero().flatten().tolist()
        return kept[0], kept[-1]


class LinearReadout(Readout):
    """One linear layer on the detached, normalised features of the blocks, trained together with them.

    Hinton's one-pass classifier (arXiv 2212.13345, section 3.3): the image carries the neutral label. Its own
    optimizer is named "readout" in `block_optimizers`.

    Args:
        skip_first: Leave the first block's features out, as Hinton does.
        view: "neutral" costs one more forward pass a step; "positive" costs none and is the same if the input carries
            no label (`labels=Unlabelled`).

    Raises:
        ValueError: view is not one of these.
        TypeError: skip_first is not a bool.
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
        kept = _without_first(outputs, self.skip_first)
        return [linear(h.flatten(1)) for linear, h in zip(self.linear, kept, strict=True)]

    def block_scores(self, outputs: list[Tensor]) -> list[Tensor]:
        return self.contributions(outputs)
