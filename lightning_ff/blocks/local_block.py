"""LocalBlock: layers with their own objective, the unit of local learning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lightning_ff._torch import BatchNormBase, DropoutBase, NormBase
from lightning_ff.blocks.recompute import check_graph, recomputing, statistics_kept
from lightning_ff.objectives import Goodness, LocalLoss, Term
from lightning_ff.objectives.goodness import wide
from lightning_ff.target import Labels, Target
from lightning_ff.validate import check_flag, check_ints, check_text, check_type, copy_if_owned

Activation = Tensor | tuple[Tensor, ...]


def first(h: Activation) -> Tensor:
    """The tensor that the goodness is measured on: the activation itself, or the first entry of a tuple."""
    return h if isinstance(h, Tensor) else h[0]


def detach(x: Activation) -> Activation:
    """Detach an activation, or every entry of a tuple."""
    return x.detach() if isinstance(x, Tensor) else tuple(entry.detach() for entry in x)


class LocalBlock(nn.Module):
    """Layers, their local objective, and the normalisation of their output for the next block.

    All parameters of a block, including those of its goodness and terms, belong to one optimizer. Goodness, loss and
    terms that another block already has are copied.

    Args:
        layers: Any module. A tuple from the block before is passed as several arguments.
        goodness: Goodness of the (first) output; None if the block learns from its terms alone, or no segment uses it.
        loss: Local loss on the goodness; None under the same conditions, and if the goodness is fitted.
        normalization: Parameter-free module applied to the (first) output for the next block; None = identity.
        terms: Terms added to the loss; without a goodness and a loss their sum is the loss.
        goodness_from: The goodness is that of the "raw" output, or of the "normalized" one for the next block.
        batch_stats: Train-mode batch norm sees positives and negatives "separate" (in two calls, so that they cannot
            be distinguished by their shared statistics) or "together".
        recompute: In training, recompute intermediate activations of the layers in the backward: less memory, more
            time, the same gradients. Needs layers from :func:`~lightning_ff.blocks.partition`.
        title: Name of the layers in the summary; None is the names of their types.
        class_map: Coarser class of every class `(C,)`, numbered from 0, which goodness, loss and terms of this block
            learn; scores for readouts and metrics are those of the coarser classes. None is the classes themselves.
        fixed: The layers keep their weights and stay in eval mode, and goodness and terms alone learn.

    Raises:
        ValueError: goodness and loss are of different modes, the normalisation has parameters, or the class map leaves
            out a number.
        TypeError: a part is not of the annotated type.
    """

    goodness: Goodness | None
    loss: LocalLoss | None
    class_map: Tensor | None

    def __init__(
        self,
        layers: nn.Module,
        goodness: Goodness | None = None,
        loss: LocalLoss | None = None,
        normalization: nn.Module | None = None,
        terms: Iterable[Term] = (),
        goodness_from: Literal["raw", "normalized"] = "raw",
        batch_stats: Literal["separate", "together"] = "separate",
        recompute: bool = False,
        title: str | None = None,
        class_map: Sequence[int] | None = None,
        fixed: bool = False,
    ) -> None:
        super().__init__()
        check_flag("recompute", recompute)
        check_flag("fixed", fixed)
        check_text("title", title, "give the name of the layers, or None")
        terms = _checked(layers, goodness, loss, normalization, terms)
        if goodness is not None and loss is not None and goodness.mode != loss.mode:
            raise ValueError(
                f"goodness={goodness} works in {goodness.mode} mode and loss={loss} in {loss.mode} mode: choose two of "
                "the same mode"
            )
        if normalization is not None and next(normalization.parameters(), None) is not None:
            raise ValueError(
                f"normalization={normalization} has parameters: the next block's gradient would reach them; "
                "use a parameter-free one or put it inside the layers"
            )
        if batch_stats not in ("separate", "together"):
            raise ValueError(f"batch_stats={batch_stats!r}: choose 'separate' or 'together'")
        if goodness_from not in ("raw", "normalized"):
            raise ValueError(f"goodness_from={goodness_from!r}: choose 'raw' or 'normalized'")
        self.layers = layers
        self.goodness = None if goodness is None else copy_if_owned(goodness)
        self.loss = None if loss is None else copy_if_owned(loss)
        self.normalization = normalization
        self.terms = nn.ModuleList(copy_if_owned(term) for term in terms)
        self.goodness_from = goodness_from
        self.batch_stats = batch_stats
        self.recompute = recompute
        self.title = title
        self.fixed = fixed
        if fixed:
            layers.requires_grad_(False)
        self.register_buffer("class_map", _checked_map(class_map), persistent=False)
        self._has_map = class_map is not None
        self._channel_move: tuple[int, int] | None = None
        if recompute:
            check_graph(layers)
        # nested lists, so that they are not registered as submodules
        self._mode_layers = [[m for m in layers.modules() if isinstance(m, (NormBase, DropoutBase))]]
        self._separates_statistics = batch_stats == "separate" and any(
            isinstance(m, BatchNormBase) for m in layers.modules()
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle; the previous release had other names for some attributes."""
        old = {"_modal": "_mode_layers", "_moves": "_channel_move", "_splits": "_separates_statistics"}
        nn.Module.__setstate__(
            self, {"_has_map": False, "fixed": False, **{old.get(name, name): value for name, value in state.items()}}
        )

    def forward(
        self, x: Activation, positives: int | None = None, measure: bool = True
    ) -> tuple[Activation, Tensor | None]:
        """Run the layers and measure the goodness.

        Args:
            x: Input `(N, ...)`, or a tuple of such.
            positives: In training, the number of leading rows that are positives; None in class mode.
            measure: Compute the goodness.

        Returns:
            The activation, and its goodness `(N,)`, `(N, L)` for L local values, or `(N, C)`, in float32 (None without
            `measure`).
        """
        inputs = (x,) if isinstance(x, Tensor) else x
        if positives is not None and self._separates_statistics and self.training:
            h = _concatenate(self._run(i[:positives] for i in inputs), self._run(i[positives:] for i in inputs))
        else:
            h = self._run(inputs)
        return h, self.measure(first(h)) if measure and self.goodness is not None else None

    def _run(self, inputs: Iterable[Tensor]) -> Activation:
        if self.fixed and self.layers.training:
            self.layers.eval()
        if self.recompute and self.training and torch.is_grad_enabled():
            return recomputing(self.layers, tuple(inputs))
        return self.layers(*inputs)

    def measure(self, h: Tensor) -> Tensor:
        """Goodness of an activation, in float32 for any precision of the training (float64 is kept)."""
        assert self.goodness is not None
        with _without_autocast(h):
            return self.goodness(self._measured(h))

    def _measured(self, h: Tensor) -> Tensor:
        """What the goodness is measured on."""
        h = self.standard(h)
        if self.goodness_from == "normalized" and self.normalization is not None:
            h = self.normalization(h)
        return wide(h)

    @torch.no_grad()
    def observe(self, h: Tensor, target: Target) -> None:
        """Give a fitted goodness an activation of a training batch, see `Goodness.observe`."""
        assert self.goodness is not None
        with _without_autocast(h):
            self.goodness.observe(self._measured(h.detach()), self.target(target))

    def own_loss(self, goodness: Tensor | None, target: Target) -> Tensor | None:
        """The local loss on a measured goodness; None if the block has none."""
        return None if self.loss is None or goodness is None else self.loss(goodness, self.target(target))

    def term_losses(self, x: Tensor, h: Tensor, target: Target) -> list[Tensor]:
        """Values of the terms, which get input and activation in float32 as the goodness does."""
        if not len(self.terms):
            return []
        with _without_autocast(h):
            return [term(wide(x), wide(h), self.target(target)) for term in self.terms]

    def target(self, target: Target) -> Target:
        """The target that this block learns: labels of coarser classes if it has a class map."""
        if not self._has_map or not isinstance(target, Labels):
            return target
        return Labels(cast(Tensor, self.class_map)[target.label])

    def scores(self, goodness: Tensor) -> Tensor:
        """Goodness `(N,)` or `(N, C)` for readouts and metrics: the mean of local values, or all classes' scores."""
        if goodness.dim() == 2 and self.goodness is not None and self.goodness.mode == "pair":
            return goodness.mean(1)
        return goodness.index_select(1, cast(Tensor, self.class_map)) if self._has_map else goodness

    def unit(self, shape: torch.Size) -> float:
        """Goodness of an activation of ones `shape`, normalised if goodness_from="normalized"."""
        assert self.goodness is not None
        if self.goodness_from == "raw" or self.normalization is None:
            return self.goodness.unit(shape)
        return float(self.measure(torch.ones(1, *shape)).mean())

    @torch.no_grad()
    def refresh(self, x: Activation, positives: int | None = None) -> Activation:
        """The activation with the current weights, without an update of running statistics."""
        with statistics_kept(self.layers):
            return self(x, positives, measure=False)[0]

    def hand_over(self, h: Activation) -> Activation:
        """Input of the next block: the activation with its first entry normalised."""
        if self.normalization is None:
            return h
        normal = self.normalization(self.standard(first(h)))
        if self._channel_move is not None:
            normal = normal.movedim(*reversed(self._channel_move))
        return normal if isinstance(h, Tensor) else (normal, *h[1:])

    def standard(self, h: Tensor) -> Tensor:
        """A (first) output in the layout of goodness and normalisation: channels first in maps, last in tokens."""
        return h if self._channel_move is None else h.movedim(*self._channel_move)

    def place_channels(self, h: Tensor, axis: int) -> None:
        """Set the axis of the channels of its (first) output `h`, 1 or -1."""
        usual = 1 if h.dim() > 3 else -1
        self._channel_move = (axis, usual) if h.dim() > 2 and axis != usual else None

    @property
    def in_train_mode(self) -> bool:
        """Whether a normalisation or dropout layer is in train mode, also if set through the original network."""
        return any(module.training for module in self._mode_layers[0])

    @property
    def fitted(self) -> bool:
        """Whether the goodness is fitted at the ends of epochs."""
        return self.goodness is not None and self.goodness.fitted

    @property
    def trainable(self) -> bool:
        """Whether any parameter of the block requires a gradient."""
        return any(p.requires_grad for p in self.parameters())


def _without_autocast(h: Tensor) -> AbstractContextManager[Any]:
    kind = h.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _checked_map(class_map: Any) -> Tensor | None:
    """A class map as a tensor; raises if it leaves out a number."""
    if class_map is None:
        return None
    check_ints("class_map", class_map, "give the coarser class of every class, such as [0, 0, 1]")
    if not class_map or set(class_map) != set(range(max(class_map) + 1)):
        raise ValueError(f"class_map={list(class_map)}: number the coarser classes from 0 without a gap")
    return torch.tensor(list(class_map))


def _concatenate(a: Activation, b: Activation) -> Activation:
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor)
        return torch.cat((a, b))
    return tuple(torch.cat(pair) for pair in zip(a, b, strict=True))


def _checked(layers: object, goodness: object, loss: object, normalization: object, terms: Any) -> list[Term]:
    """Check the type of every part; returns the terms as a list."""
    check_type("layers", layers, nn.Module, "give a module, such as nn.Sequential(...)")
    if goodness is not None:
        check_type("goodness", goodness, Goodness, "give a Goodness, such as MeanSquare()")
    if loss is not None:
        check_type("loss", loss, LocalLoss, "give a LocalLoss, such as ThresholdLoss()")
    if normalization is not None:
        check_type("normalization", normalization, nn.Module, "give a module, such as Normalize('rms')")
    check_type("terms", None if isinstance(terms, Mapping) else terms, Iterable, "give a list of terms")
    listed: list[Term] = list(terms)
    for i, term in enumerate(listed):
        check_type(f"terms[{i}]", term, Term, "give a Term, such as PeerNormalization()")
    return listed
