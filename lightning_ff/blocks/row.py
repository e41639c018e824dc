"""Named modules one after another, for a model whose own forward cannot be recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ff.blocks.measure import example
from lightning_ff.blocks.tracing import members, untouched

_REMEDY = (
    "name all modules in the order in which they run, and move what is computed between them into a module of its own"
)


def check_row(model: nn.Module, paths: Sequence[str], input_shape: Sequence[int]) -> None:
    """Check on an example that modules one after another return the model's output.

    Raises:
        ValueError: they do not, or one of them is unknown or cannot take its input.
    """
    known = dict(model.named_modules())
    for name in paths:
        if name not in known or not name:
            raise ValueError(f"cuts: the model has no module {name!r}; its modules are {[n for n in known if n][:20]}")
        if isinstance(known[name], (nn.ModuleList, nn.ModuleDict)):
            inside = members(name, known[name])
            raise ValueError(f"cuts: {name!r} is a {type(known[name]).__name__}, which does not run: name {inside}")
    with untouched(model), torch.no_grad():
        x = example(model, input_shape, torch.rand)
        expected = _run(model.eval(), x, f"input_shape={tuple(input_shape)} does not fit {type(model).__name__}")
    with untouched(model), torch.no_grad():
        model.eval()
        for name in paths:
            shape = f", which gets {tuple(x.shape[1:])}" if isinstance(x, Tensor) else ""
            x = _run(known[name], x, f"cuts={list(paths)}: {_REMEDY}; now {name!r}{shape}, fails")
    if not (isinstance(expected, Tensor) and isinstance(x, Tensor) and torch.equal(x, expected)):
        raise ValueError(
            f"cuts={list(paths)}: the forward of {type(model).__name__} cannot be traced, and these modules one after "
            f"another do not give its output; {_REMEDY}"
        )


def _run(module: nn.Module, x: Any, failure: str) -> Any:
    try:
        return module(x)
    except Exception as error:
        raise ValueError(f"{failure}: {error}") from error
