"""Readouts: per-block scores or features become class scores of the network.

Shapes: N samples, C classes, K blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ff.objectives import sparsemax
from lightning_ff.validate import check_int, check_ints, check_type

_SWITCH = "choose True or False"


class Readout(nn.Module):
    """Base of all readouts: override `contributions`, one `(N, C)` per block; their sum is the network's class scores.

    Attributes:
        needs: "scores" (per-block class scores) or "features" (normalised outputs of the blocks).
        view: Input that a readout with parameters learns from in pair mode: the image with the "neutral" label, in a
            separate pass, or the "positive" rows of the sweep. It predicts from the neutral view. Class mode has one
            view.
        takes_some: Combines the scores of any number of blocks, so that blocks that have not learned are left out.
        indices: Indices of the blocks in `block_scores`, if it is a choice of blocks by index.
    """

    needs: Literal["scores", "features"] = "scores"
    view: Literal["neutral", "positive"] = "neutral"
    takes_some: bool = False
    indices: list[int] | None = None

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


class SparsemaxReadout(SumReadout):
    """Sum of the sparsemax over classes of every block (CaFo, arXiv 2303.09728).

    Args:
        skip_first: Leave the first block out.

    Raises:
        TypeError: skip_first is not a bool.
    """

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        return [sparsemax(scores) for scores in super().contributions(outputs)]


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
        ValueError: an index is out of range or given twice, or there is none.
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
        _check_blocks(blocks)
        check_type("softmax", softmax, bool, _SWITCH)
        self.blocks = None if blocks is None else list(blocks)
        self.softmax = softmax
        self.takes_some = blocks is None

    def build(self, shapes: Sequence[torch.Size], num_classes: int) -> None:
        _check_range(self.blocks, len(shapes))

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
        skip_first: Leave the first block's features out, as Hinton does; without effect if `blocks` are given.
        view: "neutral" costs one more forward pass a step; "positive" costs none and is the same if the input carries
            no label (`labels=Unlabelled`).
        blocks: Indices of the blocks in use, negative ones from the end; None is all, see `skip_first`.
        pool: Maps `(N, C, H, W)` are averaged to `pool` x `pool` positions; None leaves them as they are.

    Raises:
        ValueError: view is not one of these, an index is out of range or given twice, or `pool` is below 1 or there are
            no maps.
        TypeError: skip_first is not a bool, blocks not a list of integers, or pool not an integer.

    Example::

        >>> readout = LinearReadout(blocks=[-1], pool=2)
        >>> readout.build([torch.Size((8, 14, 14)), torch.Size((16, 7, 7))], num_classes=10)
        >>> readout.linear
        ModuleList(
          (0): Linear(in_features=64, out_features=10, bias=True)
        )
    """

    needs: Literal["scores", "features"] = "features"
    blocks: list[int] | None = None  # also of readouts that an earlier release pickled
    pool: int | None = None

    def __init__(
        self,
        skip_first: bool = True,
        view: Literal["neutral", "positive"] = "neutral",
        blocks: Sequence[int] | None = None,
        pool: int | None = None,
    ) -> None:
        super().__init__()
        if view not in ("neutral", "positive"):
            raise ValueError(f"view={view!r}: choose 'neutral' or 'positive'")
        check_type("skip_first", skip_first, bool, _SWITCH)
        _check_blocks(blocks)
        if pool is not None:
            check_int("pool", pool, "give the number of positions along each side, such as 1, or None")
            if pool < 1:
                raise ValueError(f"pool={pool}: must be at least 1, or None to leave maps as they are")
        self.skip_first = skip_first
        self.view = view
        self.blocks = None if blocks is None else list(blocks)
        self.pool = pool
        self.linear = nn.ModuleList()

    def build(self, shapes: Sequence[torch.Size], num_classes: int) -> None:
        _check_range(self.blocks, len(shapes))
        self.indices = self._used(len(shapes))
        if self.pool is not None and not any(len(shapes[k]) == 3 for k in self.indices):
            raise ValueError(f"pool={self.pool} averages maps (N, C, H, W), and no block in use has one: leave it out")
        sizes = [self._pooled(torch.empty(1, *shapes[k], device="meta")).numel() for k in self.indices]
        self.linear = nn.ModuleList(nn.Linear(size, num_classes, bias=k == 0) for k, size in enumerate(sizes))

    def _used(self, count: int) -> list[int]:
        """Indices of the blocks that are used."""
        first = 1 if self.skip_first and count > 1 else 0
        return [k % count for k in self.blocks] if self.blocks is not None else [*range(first, count)]

    def _pooled(self, h: Tensor) -> Tensor:
        return h if self.pool is None or h.dim() != 4 else F.adaptive_avg_pool2d(h, self.pool)

    def contributions(self, outputs: list[Tensor]) -> list[Tensor]:
        pooled = [self._pooled(outputs[k]) for k in self._used(len(outputs))]
        return [linear(h.flatten(1)) for linear, h in zip(self.linear, pooled, strict=True)]

    def block_scores(self, outputs: list[Tensor]) -> list[Tensor]:
        return self.contributions(outputs)


def _check_blocks(blocks: Sequence[int] | None) -> None:
    """Check indices of blocks."""
    if blocks is not None:
        check_ints("blocks", blocks, "give a list of indices, such as [0, -1], or None for all")
        if not blocks:
            raise ValueError("blocks=[]: name at least one block, or None for all")


def _check_range(blocks: Sequence[int] | None, count: int) -> None:
    """Check that indices are those of blocks, each once."""
    for k in blocks or []:
        if not -count <= k < count:
            raise ValueError(f"blocks={blocks}: there is no block {k} among {count}")
    if blocks and len({k % count for k in blocks}) < len(blocks):
        raise ValueError(f"blocks={blocks} names one of {count} blocks twice: name each once")
