"""Blocks of a cut network that all measure a class goodness."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, Literal

from torch import nn

from lightning_ff._torch import ConvBase
from lightning_ff.blocks import LocalBlock, Partition
from lightning_ff.cut.cautions import check_output, warn_of_one_block
from lightning_ff.objectives import Goodness, LocalLoss, OutputGoodness, Term

Head = Literal["local", "auxiliary", "none"]


def measured_blocks(
    net: nn.Module,
    cut: Partition,
    num_classes: int,
    cuts: int | str | list[str],
    head: Head,
    goodness: Goodness,
    loss: LocalLoss,
    normalization: nn.Module,
    terms: Iterable[Term] = (),
    recompute: bool = False,
    **parts: Any,
) -> list[LocalBlock]:
    """A block for every part of a cut network, each with copies of goodness, loss and terms.

    Args:
        net: The network.
        cut: Its parts.
        num_classes: Number of classes.
        cuts: How it was cut, for messages.
        head: The last block, with the network's own classifier: "local" trains it on its own output, without terms;
            "auxiliary" treats it like the others; "none" leaves it out and freezes it.
        goodness: Goodness of the blocks.
        loss: Loss of the blocks.
        normalization: Normalisation of their outputs; has no parameters.
        terms: Terms of the blocks.
        recompute: Recompute intermediate activations in the backward.
        **parts: Further arguments of the blocks with a goodness of their own.

    Raises:
        ValueError: the head is none of these, or does not fit the network.
    """
    if head not in ("local", "auxiliary", "none"):
        raise ValueError(f"head={head!r}: choose 'local', 'auxiliary' or 'none'")
    if head != "none":
        check_output(net, cut, num_classes if head == "local" else None)
    if head == "none" and len(cut) == 1:
        raise ValueError(f"cuts={cuts!r} leave {type(net).__name__} one block, its classifier, so none would learn")
    warn_of_one_block(net, cut, cuts)
    layers = list(cut)
    if head == "none":
        _check_is_head(layers[-1], cut.names[-1], cuts)
        layers.pop().requires_grad_(False)
    blocks = []
    for layer, title in zip(layers, cut.names, strict=False):
        made = [deepcopy(term) for term in terms]
        both = deepcopy(goodness), deepcopy(loss), deepcopy(normalization), made
        blocks.append(LocalBlock(layer, *both, recompute=recompute, title=title, **parts))
    if head == "local":
        last, title = layers[-1], cut.names[-1]
        blocks[-1] = LocalBlock(last, OutputGoodness(), deepcopy(loss), recompute=recompute, title=title)
    return blocks


def _check_is_head(layer: nn.Module, name: str, cuts: object) -> None:
    """Check that the last block can be left out: it has one weight layer, or only linear layers."""
    weighted = [
        module for module in layer.modules() if isinstance(module, (ConvBase, nn.Linear, nn.MultiheadAttention))
    ]
    linear = isinstance(cuts, str) and all(type(module) is nn.Linear for module in weighted)
    if len(weighted) > 1 and not linear:
        raise ValueError(
            f"head='none' would leave out the last block, {name}, which holds {len(weighted)} weight layers and not "
            "the classifier alone: use head='local' or 'auxiliary', or cuts=[...] with the path of the module before "
            "the classifier"
        )
