"""Errors and warnings of methods on a cut network, before they are built."""

from __future__ import annotations

from inspect import signature
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lightning_ff.blocks import LocalBlock, Partition
from lightning_ff.blocks.named import why_whole
from lightning_ff.learner import LocalLearner
from lightning_ff.validate import check_type

_MOST = 5  # largest number of blocks in a message


def check_extra(method: str, extra: dict[str, Any]) -> None:
    """Raise for arguments that no learner has, such as those of another method's checkpoint.

    Raises:
        TypeError: there is such an argument.
    """
    known = signature(LocalLearner).parameters.keys() - {"network"}
    if unknown := sorted(extra.keys() - known):
        raise TypeError(
            f"{method} has no argument {', '.join(map(repr, unknown))}: leave it out; a checkpoint that holds it is of "
            f"another method, whose class loads it, and {method}(..., weights=FILE) begins with its weights"
        )


def check_own(method: str, extra: dict[str, Any], *names: str) -> None:
    """Raise for an argument of the base class that a method sets itself.

    Raises:
        TypeError: it is given.
    """
    for name in names:
        if name in extra:
            raise TypeError(f"{method} has no argument {name!r}: leave it out, or use ScalableForwardForward")


def check_terms(terms: Any) -> None:
    """Check the type of the argument `terms`.

    Raises:
        TypeError: it is no list.
    """
    check_type("terms", [] if terms is None else terms, (list, tuple), "give a list, such as [ActivationPenalty(1e-6)]")


def check_segments(method: str, what: str, extra: dict[str, Any]) -> None:
    """Raise if `segments` is given to a method that sets it."""
    if "segments" in extra:
        raise ValueError(f"segments={extra['segments']!r}: {method} is one segment with {what}, leave it out")


def check_output(model: nn.Module, cut: Partition, num_classes: int | None) -> None:
    """Check that the model returns one tensor of `num_classes` class scores; None accepts any number.

    Raises:
        ValueError: it does not.
    """
    assert cut.measured is not None
    shapes = [tuple(shape) for shape in cut.measured[-1].shapes]
    if len(shapes) > 1:
        raise ValueError(
            f"model={type(model).__name__} gives {len(shapes)} tensors, of shapes {', '.join(map(str, shapes))} per "
            "input: wrap it in a module that returns the class scores alone"
        )
    if num_classes is None or not shapes or shapes[0] == (num_classes,):
        return
    if len(shapes[0]) > 1:
        raise ValueError(
            f"model={type(model).__name__} gives a tensor of shape {shapes[0]} per input, no vector of "
            f"num_classes={num_classes} class scores: give it a classifier, or choose head='auxiliary' in "
            "ScalableForwardForward"
        )
    (outputs,) = shapes[0]
    raise ValueError(
        f"model={type(model).__name__} has {outputs} outputs, and num_classes={num_classes}: make the model with "
        f"{num_classes} outputs, or begin with num_classes={outputs} and call reset_heads({num_classes}), which "
        "reinitialises its classifier"
    )


def warn_of_one_block(model: nn.Module, cut: Partition, cuts: Any) -> None:
    """Warn if nothing was cut, though `cuts` is not 1."""
    if len(cut) > 1 or cuts == 1:
        return
    modules = [cut[0].get_submodule(str(n.target)) for n in cut[0].graph.nodes if n.op == "call_module"]  # type: ignore[union-attr]
    whole = [m for m in modules if any(True for _ in m.children()) and any(True for _ in m.parameters())]
    reason = "there is no place to cut between two weight layers: cuts='layers' cuts across skips too"
    if whole:
        why = (
            why_whole(whole[0])
            or ", since its forward cannot be recorded: call its submodules in the model's own forward"
        )
        reason = f"{type(whole[0]).__name__} is kept whole{why}"
    rank_zero_warn(
        f"model={type(model).__name__} with cuts={cuts!r} is one block, trained by a single loss as in ordinary "
        f"backprop; {reason}, or name modules that end a block by cuts=[...]"
    )


def warn_of_still(model: nn.Module, blocks: dict[str, LocalBlock]) -> None:
    """Warn if parameters of blocks that are not frozen do not require gradients."""
    learning = {name: block for name, block in blocks.items() if not block.fixed}
    counts = {n: sum(p.numel() for p in b.layers.parameters() if not p.requires_grad) for n, b in learning.items()}
    found = [f"{count:,} in {name} ({blocks[name].title})" for name, count in counts.items() if count]
    if found:
        listed = ", ".join([*found[:_MOST], *(["..."] if len(found) > _MOST else [])])
        rank_zero_warn(
            f"model={type(model).__name__}: {sum(counts.values()):,} parameters do not require gradients and will not "
            f"learn: {listed}. Unless that is meant, call model.requires_grad_(True) before; frozen=... and "
            "head='none' of an earlier learner on the same model leave it so"
        )
