"""One optimizer made of two: one for matrices, one for all other parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_ff.optim.block_optimizers import BlockOptimizers
from lightning_ff.validate import check_type

Factory = Callable[[Iterable[nn.Parameter]], Optimizer]


class ByShape(BlockOptimizers):
    """An optimizer for matrices and one for the other parameters, such as Muon and AdamW, behind one object.

    Args:
        params: Parameters of a block.
        matrices: Factory for parameters with two axes, such as weights of linear layers.
        others: Factory for all others, such as biases and convolutions.

    Raises:
        ValueError: there are no parameters.
        TypeError: a factory does not return an optimizer.

    Example::

        >>> from functools import partial
        >>> import torch
        >>> split = ByShape(nn.Linear(3, 2).parameters(), partial(torch.optim.SGD, lr=0.1), torch.optim.AdamW)
        >>> [(type(each).__name__, len(each.param_groups[0]["params"])) for each in split.by_block.values()]
        [('SGD', 1), ('AdamW', 1)]
    """

    def __init__(self, params: Iterable[nn.Parameter], matrices: Factory, others: Factory) -> None:
        check_type("params", params, Iterable, "give the parameters of a module")
        listed = list(params)
        if not listed or not all(isinstance(p, Tensor) for p in listed):
            raise ValueError("params holds no parameters: give those of a module")
        made = {}
        for name, factory, own in (
            ("matrices", matrices, [p for p in listed if p.dim() == 2]),
            ("others", others, [p for p in listed if p.dim() != 2]),
        ):
            if not callable(factory):
                raise TypeError(f"{name}={factory!r}: give a factory, such as torch.optim.AdamW")
            if own:
                made[name] = factory(own)
                if not isinstance(made[name], Optimizer):
                    raise TypeError(f"{name} made a {type(made[name]).__name__}: give a factory, as torch.optim.AdamW")
        super().__init__(made)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Share groups and state with the two optimizers, also where another facade sets them."""
        super().__setstate__(state)
        if "by_block" in vars(self):
            self._share()
