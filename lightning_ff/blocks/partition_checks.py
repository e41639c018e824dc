"""Checks of a model and of the arguments of a partition."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any, Literal, get_args

import torch
from torch import nn

from lightning_ff._torch import is_compiled

Cuts = Literal["blocks", "finest", "layers", "stages"]
Balance = Literal["parameters", "activations"]
_NAMED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def check_arguments(model: Any, cuts: Any, input_shape: Any, balance: Any) -> None:
    """Check the arguments as far as possible without tracing the model."""
    if not isinstance(model, nn.Module):
        hint = "; call it first" if callable(model) else ""
        raise TypeError(f"model={model!r}: give an nn.Module, not {type(model).__name__}{hint}")
    _check_inputs(model)
    if any(nn.parameter.is_lazy(p) for p in (*model.parameters(), *model.buffers())):
        raise ValueError(f"model={type(model).__name__} has lazy modules: run it once on a batch before cutting it")
    if isinstance(cuts, str) and cuts not in get_args(Cuts):
        known = ", ".join(map(repr, get_args(Cuts)))
        named = f" such as [{cuts!r}]" if cuts in dict(model.named_modules()) else ""
        raise ValueError(f"cuts={cuts!r}: choose one of {known}, a number of blocks, or a list of module paths{named}")
    if isinstance(cuts, bool) or not isinstance(cuts, str | int | Sequence):
        raise ValueError(f"cuts={cuts!r}: give a word, a number of blocks, or a list of module paths")
    if isinstance(cuts, int) and cuts < 1:
        raise ValueError(f"cuts={cuts}: give at least 1 block")
    if not isinstance(cuts, str | int) and (not cuts or not all(isinstance(name, str) for name in cuts)):
        raise ValueError(f"cuts={cuts!r}: give the path of at least one module, such as ['layer1', 'layer2']")
    if balance not in get_args(Balance):
        raise ValueError(f"balance={balance!r}: choose one of {', '.join(map(repr, get_args(Balance)))}")
    _check_shape(input_shape, cuts == "stages" or (isinstance(cuts, int) and balance == "activations"))


def check_uncompiled(model: nn.Module) -> None:
    """Check that no module of a model is compiled by `torch.compile`, which hides its operations."""
    for name, module in model.named_modules(prefix="model"):
        if is_compiled(module):
            raise ValueError(
                f"model={type(model).__name__}: {name} is compiled by torch.compile, and a compiled network cannot be "
                f"cut into blocks: give the original module, {name}._orig_mod"
            )


def _check_inputs(model: nn.Module) -> None:
    check_uncompiled(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"model={type(model).__name__}: give the module itself, not its scripted form")
    required = [
        p.name for p in signature(model.forward).parameters.values() if p.default is p.empty and p.kind in _NAMED
    ]
    if len(required) > 1:
        raise ValueError(
            f"model={type(model).__name__}: its forward takes {len(required)} inputs ({', '.join(required)}); "
            "blocks pass one activation on: give the others a default, or wrap the model in a module with one input"
        )


def _check_shape(input_shape: Any, needed: bool) -> None:
    if input_shape is None and needed:
        raise ValueError(
            "input_shape=None: stages and balance='activations' are found on a dry run; give the shape of one input, "
            "such as (3, 224, 224)"
        )
    if input_shape is not None and not (
        isinstance(input_shape, Sequence) and input_shape and all(isinstance(n, int) and n > 0 for n in input_shape)
    ):
        raise ValueError(
            f"input_shape={input_shape!r}: give the sizes of one input, each at least 1, such as (3, 32, 32)"
        )


def check_parameters(model: nn.Module, blocks: Sequence[nn.Module], names: Sequence[str]) -> list[str]:
    """Check that every parameter is in at most one block; returns the names of those in none."""
    block_of: dict[nn.Parameter, int] = {}
    for number, block in enumerate(blocks):
        for parameter in block.parameters():
            if parameter in block_of:
                tied = [name for name, p in model.named_parameters(remove_duplicate=False) if p is parameter]
                one, other = block_of[parameter], number
                raise ValueError(
                    f"parameter {' = '.join(map(repr, tied))} is used by block {one} ({names[one]}) and block {other} "
                    f"({names[other]}), but a block learns its own parameters only: give each its own copy, or keep "
                    "them in one block by cuts=[...], paths of the modules that end a block"
                )
            block_of[parameter] = number
    return [name for name, p in model.named_parameters() if p not in block_of]
