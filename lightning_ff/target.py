"""Targets of a batch: `Pairs` of positives and negatives, or `Labels`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pair mode: the leading rows of a batch are positives, the others negatives.

    Attributes:
        positives: Number of positives P.

    Example::

        >>> import torch
        >>> target = Pairs(2)
        >>> torch.tensor([3.0, 4.0, 1.0])[: target.positives]
        tensor([3., 4.])
    """

    positives: int

    def __index__(self) -> NoReturn:
        raise TypeError(
            f"the target of a loss or term is {self}, no longer an int: write goodness[: target.positives] in place of "
            "goodness[:target]"
        )

    __int__ = __float__ = __index__


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Class mode: the class of every sample.

    Attributes:
        label: Classes `(N,)`, int64.
    """

    label: Tensor

    def __getattr__(self, name: str) -> Any:
        if hasattr(Tensor, name) and not name.startswith("__"):
            raise AttributeError(_NOT_A_TENSOR.format(f"target.{name}", f"target.label.{name}"))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (Tensor, int)):
            raise TypeError(_NOT_A_TENSOR.format("target == ...", "target.label == ..."))
        return self is other

    __hash__ = object.__hash__

    def __getitem__(self, rows: Any) -> NoReturn:
        raise TypeError(_NOT_A_TENSOR.format("target[...]", "target.label[...]"))

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        name = getattr(function, "__name__", "function")
        raise TypeError(_NOT_A_TENSOR.format(f"{name}(goodness, target)", f"{name}(goodness, target.label)"))


Target = Pairs | Labels

_NOT_A_TENSOR = "the target of a loss or term is Labels(label), no longer a tensor: write {1} in place of {0}"


def rows(x: Tensor, target: Target) -> Tensor:
    """The rows of true samples: the positives in pair mode, all rows in class mode."""
    if not isinstance(target, (Pairs, Labels)):
        raise TypeError(f"target={target!r}: give Pairs(positives) or Labels(label)")
    return x[: target.positives] if isinstance(target, Pairs) else x


def plain(target: Target) -> Tensor | int:
    """The target in `outputs["target"]` of a training step: the number of positives, or the labels `(N,)`."""
    return target.positives if isinstance(target, Pairs) else target.label
