"""Targets of a batch: `Pairs` of positives and negatives, or `Labels`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
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

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (int, Tensor)):
            raise self._not_an_int()
        return isinstance(other, Pairs) and other.positives == self.positives

    def __hash__(self) -> int:
        return hash(self.positives)

    def _not_an_int(self) -> TypeError:
        return TypeError(
            f"the target of a loss or term is {self}, no longer an int: write target.positives in place of target, as "
            "in: write goodness[: target.positives] in place of goodness[:target]"
        )

    def _refuse(self, *_: Any) -> NoReturn:
        raise self._not_an_int()

    __index__ = __int__ = __float__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __truediv__ = __mod__ = _refuse

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        found = [each for each in (*args, *(kwargs or {}).values()) if isinstance(each, Pairs)]
        raise (found[0] if found else cls(0))._not_an_int()


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

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(_NOT_A_TENSOR.format("target", "target.label"))

    __len__ = __iter__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __truediv__ = __mod__ = _refuse

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        name = getattr(function, "__name__", "function")
        called = "target" if name.startswith("__") else f"{name}(goodness, target)"
        raise TypeError(_NOT_A_TENSOR.format(called, called.replace("target", "target.label")))


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
