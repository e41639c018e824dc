"""Building of parts that depend on shapes: a dry run of the blocks on zeros, with checks of their outputs.

Shapes: N samples, C classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_ff._torch import version
from lightning_ff.blocks.channels import channel_axis, watching
from lightning_ff.blocks.local_block import Activation, LocalBlock, first
from lightning_ff.objectives import Mode, Term
from lightning_ff.validate import check_type

Shapes = tuple[torch.Size, ...]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for a module; restores the mode of every submodule."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def as_blocks(blocks: Iterable[LocalBlock]) -> list[LocalBlock]:
    """The blocks as a list.

    Raises:
        TypeError: an entry is not a :class:`~lightning_ff.LocalBlock`.
    """
    check_type("blocks", blocks, Iterable, "give a list of LocalBlock")
    listed = list(blocks)
    for i, block in enumerate(listed):
        check_type(f"blocks[{i}]", block, LocalBlock, "wrap the layers, LocalBlock(layers, goodness, loss)")
    return listed


def mode_of(blocks: Sequence[LocalBlock], labelled: bool) -> Mode:
    """The one mode of all goodness functions; of blocks without any, pair mode with a label encoding, else class mode.

    Raises:
        ValueError: there are two, or blocks have neither a goodness nor terms.
    """
    modes = {block.goodness.mode for block in blocks if block.goodness is not None}
    if len(modes) == 2 or (not modes and not any(len(block.terms) for block in blocks)):
        found = f"goodness of modes {sorted(modes)}" if modes else "no goodness at all"
        raise ValueError(f"blocks have {found}: give every block one of the same mode, 'pair' or 'class', or terms")
    return modes.pop() if modes else "pair" if labelled else "class"


@torch.no_grad()
def dry_run(
    blocks: Mapping[str, LocalBlock],
    x: Activation,
    input_shape: Sequence[int],
    num_classes: int,
    mode: Mode,
    as_it_is: bool,
) -> list[Shapes]:
    """Run zeros through the blocks, and build what depends on shapes: goodness, loss scales and terms.

    Args:
        blocks: The blocks by name, in order.
        x: Input of the first block, one sample.
        input_shape: Shape of one input as given by the user, for messages.
        num_classes: C.
        mode: "pair" or "class".
        as_it_is: The first block gets the input without a label or a normalisation.

    Returns:
        Output shapes of every block, without the batch axis.
    """
    shapes = []
    for name, block in blocks.items():
        with watching(block.layers) as seen:
            h = _checked_output(name, block, x, tuple(input_shape), as_it_is)
        shape = first(h).shape[1:]
        block.place_channels(first(h), channel_axis(first(h).shape, seen))
        classes = _own_classes(name, block, mode, num_classes)
        if block.goodness is not None:
            _build_goodness(name, block, shape, classes)
        for term in cast(Iterable[Term], block.terms):
            _check_build(name, term)
            term.build(shape, first(x).shape[1:], classes)
        shapes.append(tuple(entry.shape[1:] for entry in ((h,) if isinstance(h, Tensor) else h)))
        x = block.hand_over(h)
    return shapes


def _checked_output(
    name: str, block: LocalBlock, x: Activation, input_shape: tuple[int, ...], as_it_is: bool
) -> Activation:
    """A block's output in the dry run; raises if the block fails or changes its input."""
    entries = (x,) if isinstance(x, Tensor) else x
    before = [version(entry) for entry in entries]
    try:
        with evaluating(block):
            h, _ = block(x, measure=False)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} cannot take its input of shape {tuple(first(x).shape[1:])} "
            f"(input_shape={input_shape}): {_hint_for_tokens(block, x, as_it_is) or error}"
        ) from error
    if not all(isinstance(entry, Tensor) for entry in (h if isinstance(h, tuple) and h else [h])):
        raise ValueError(
            f"{name} gives a {type(h).__name__}, and a block gives a tensor (N, ...) or a tuple of tensors, the "
            "activation first: wrap what gives it in a module that returns the tensor alone"
        )
    for entry in h if isinstance(h, tuple) else [h]:
        if entry.shape[:1] != (1,):
            raise ValueError(
                f"{name} gives a tensor of shape {tuple(entry.shape)} for a batch of one sample, without the batch "
                "axis: use x.flatten(1) or x.squeeze(-1) in place of x.squeeze(), which removes every axis of size 1"
            )
    if before != [version(entry) for entry in entries]:
        raise ValueError(
            f"{name} changes its input in place, which is the activation of the block before or the data: start "
            "with an operation that does not, such as nn.ReLU(inplace=False)"
        )
    return h


def _hint_for_tokens(block: LocalBlock, x: Activation, as_it_is: bool) -> str | None:
    """Hint for a block that fails on its input but runs on integers, as an embedding does."""
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return None
    try:
        with evaluating(block):
            block(x.long(), measure=False)
    except Exception:
        return None
    wrap = ", or wrap the embedding in a module that gets them as floats and calls x.long()" if as_it_is else ""
    what = f"it takes integers, and its input is of type {x.dtype}"
    return f"{what}; embed tokens before, outside the network{wrap}"


def _check_build(name: str, term: Term) -> None:
    """Check that a term's `build` takes the shape of the input and the number of classes."""
    parameters: Any = inspect.signature(term.build).parameters.values()
    if len(parameters) < 3 and not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        raise TypeError(
            f"terms of {name}: {type(term).__name__}.build gets the shape of the input and the number of classes too: "
            "write def build(self, shape, inputs, num_classes)"
        )


def _build_goodness(name: str, block: LocalBlock, shape: torch.Size, num_classes: int) -> None:
    """Build a block's goodness for its output's shape, set the scale of the loss, and check the goodness's shape."""
    assert block.goodness is not None
    h = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    block.goodness.build(block.standard(h).shape[1:], num_classes)
    try:
        with evaluating(block):
            g = block.measure(h)
        if block.loss is not None and block.goodness.mode == "pair":
            block.loss.bind(block.unit(shape))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"goodness={block.goodness} of {name} cannot take an activation of shape {tuple(shape)}: {error}"
        ) from error
    pair, shape_of_goodness = block.goodness.mode == "pair", tuple(g.shape)
    local = pair and g.dim() == 2 and len(g) == 2
    if shape_of_goodness != ((2,) if pair else (2, num_classes)) and not local:
        each = "(2,), one number per sample, or (2, L)" if pair else f"{(2, num_classes)}, one per sample and class"
        raise ValueError(
            f"goodness={block.goodness} of {name} maps 2 samples of {tuple(shape)} to {shape_of_goodness}: "
            f"{block.goodness.mode} mode needs {each}"
        )
    if block.goodness.mode == "pair" and block.goodness_from == "normalized" and torch.allclose(g[0], g[1]):
        raise ValueError(
            f"goodness_from='normalized' of {name}: with normalization={block.normalization} every activation has "
            f"the same goodness={block.goodness}, so nothing could be learned; use goodness_from='raw'"
        )


def _own_classes(name: str, block: LocalBlock, mode: Mode, num_classes: int) -> int:
    """Number of classes that a block learns: C, or that of its coarser classes."""
    if block.class_map is None:
        return num_classes
    if mode == "pair" or len(block.class_map) != num_classes:
        remedy = "leave it out in pair mode" if mode == "pair" else f"give one number for each of {num_classes} classes"
        raise ValueError(f"class_map={block.class_map.tolist()} of {name}: {remedy}")
    return int(block.class_map.max()) + 1
