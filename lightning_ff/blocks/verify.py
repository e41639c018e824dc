"""Check on an example that the blocks of a model compute the same as the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ff._torch import tree_leaves
from lightning_ff.blocks.measure import example
from lightning_ff.blocks.tracing import untouched

Result = list[Tensor]


def verify(model: nn.Module, blocks: Sequence[nn.Module], input_shape: Sequence[int]) -> None:
    """Compare outputs and buffers in training and in evaluation, from the same random state.

    Raises:
        ValueError: they differ, so the recorded forward is not the model's own.
    """
    with untouched(model):
        x = example(model, input_shape, torch.rand)
    if x.is_meta:
        return
    for training in (True, False):
        expected = _result(model, blocks, training, model, x)
        if _same(expected, _result(model, blocks, training, _one_after_another(blocks), x)):
            continue
        if _same(expected, _result(model, blocks, training, model, x)):  # the model itself is deterministic
            mode = "training" if training else "evaluation"
            raise ValueError(
                f"model={type(model).__name__}: in {mode}, its blocks give another output, or other buffers, than the "
                "model. Its forward depends on what a recording does not see, such as isinstance(x, Tensor), numbers "
                "drawn in Python or dropout between named modules: move that code into a separate module without "
                "submodules, which is kept whole"
            )


def _one_after_another(blocks: Sequence[nn.Module]) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        for block in blocks:
            x = block(x) if isinstance(x, Tensor) else block(*x)
        return x

    return run


def _result(
    model: nn.Module, blocks: Sequence[nn.Module], training: bool, forward: Callable[[Any], Any], x: Tensor
) -> Result:
    with untouched(model, *blocks), torch.no_grad():
        for part in (model, *blocks):
            part.train(training)
        output = forward(x.clone())
        found = [*tree_leaves(output), *model.buffers()]
        return [entry.detach().clone() for entry in found if isinstance(entry, Tensor)]


def _same(a: Result, b: Result) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x.double(), y.double(), 1e-4, 1e-5, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )
