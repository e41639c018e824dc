"""Sparsity of activations: pure functions, and a metric that streams them per class.

Shapes: N samples, U units, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_ff.validate import check_int


def hoyer_sparsity(h: Tensor) -> Tensor:
    """Hoyer's sparsity of each activation: `(sqrt(U) - L1 / L2) / (sqrt(U) - 1)` (Hoyer 2004; arXiv 2305.18353).

    Args:
        h: Activations `(N, ...)`.

    Returns:
        Sparsity `(N,)`: 1 if one unit is active, 0 if all are equally active, NaN if none is active.

    Raises:
        ValueError: there is a single unit.

    Example::

        >>> hoyer_sparsity(torch.tensor([[0.0, 5.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [3.0, 4.0, 0.0, 0.0]]))
        tensor([1.0000, 0.0000, 0.6000])
    """
    flat = h.flatten(1)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    units = flat.shape[1]
    if units < 2:
        raise ValueError(f"activations of shape {tuple(h.shape)} have {units} unit: sparsity needs at least 2")
    ratio = flat.abs().sum(1) / torch.linalg.vector_norm(flat, dim=1)
    return (units**0.5 - ratio) / (units**0.5 - 1)


def treves_rolls_sparsity(h: Tensor) -> Tensor:
    """Population sparseness `1 - mean(h)^2 / mean(h^2)` of each activation (Treves and Rolls 1991).

    Args:
        h: Activations `(N, ...)`, not negative.

    Returns:
        Sparsity `(N,)` in 0 to 1 - 1/U, NaN if no unit is active.

    Example::

        >>> treves_rolls_sparsity(torch.tensor([[0.0, 5.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
        tensor([0.7500, 0.0000])
    """
    flat = h.flatten(1)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    return 1 - flat.abs().mean(1).square() / flat.square().mean(1)


def active_fraction(h: Tensor) -> Tensor:
    """Share of the units above 0 of each activation `(N, ...)`, as `(N,)`.

    Example::

        >>> active_fraction(torch.tensor([[0.0, 5.0, 0.0, 1.0]]))
        tensor([0.5000])
    """
    return (h.flatten(1) > 0).float().mean(1)


class ClassStatistics(Metric):
    """Statistics of a layer's activations for each class, streamed, on any number of processes.

    Args:
        num_classes: C.
        units: U.
        **kwargs: See torchmetrics' `Metric`.

    Example::

        >>> metric = ClassStatistics(num_classes=2, units=4)
        >>> h = torch.tensor([[0.0, 5.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
        >>> metric.update(h, torch.tensor([0, 1, 1]))
        >>> {name: value.tolist() for name, value in metric.compute().items() if name in ("hoyer", "dead_units")}
        {'hoyer': [1.0, 0.0], 'dead_units': 0}
    """

    full_state_update = False
    count: Tensor
    valid: Tensor
    hoyer: Tensor
    treves_rolls: Tensor
    active: Tensor
    total: Tensor
    square: Tensor
    highest: Tensor

    def __init__(self, num_classes: int, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_int("num_classes", num_classes)
        check_int("units", units)
        self.num_classes = num_classes
        self.units = units
        for name in ("count", "valid", "hoyer", "treves_rolls"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("active", "total", "square"):
            self.add_state(name, torch.zeros(num_classes, units, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("highest", torch.full((num_classes, units), -torch.inf), dist_reduce_fx="max")

    def update(self, h: Tensor, label: Tensor) -> None:
        """Add activations `(N, ...)` of classes `(N,)`."""
        flat = h.detach().flatten(1)
        flat = flat if flat.dtype == torch.float64 else flat.float()
        if flat.shape != (*label.shape, self.units):
            raise ValueError(
                f"activations of shape {tuple(h.shape)} and labels of shape {tuple(label.shape)}: units={self.units} "
                "takes (N, ...) with as many units, and (N,)"
            )
        per_sample = {"hoyer": hoyer_sparsity(flat), "treves_rolls": treves_rolls_sparsity(flat)}
        ones = torch.ones_like(label, dtype=torch.float64)
        self.count.index_add_(0, label, ones)
        self.valid.index_add_(0, label, (~per_sample["hoyer"].isnan()).double())
        for name, values in per_sample.items():
            getattr(self, name).index_add_(0, label, values.nan_to_num(0.0).double())
        for name, rows in {"active": flat > 0, "total": flat, "square": flat.double().square()}.items():
            getattr(self, name).index_add_(0, label, rows.double())
        index = label[:, None].expand_as(flat)
        self.highest.scatter_reduce_(0, index, flat.to(self.highest.dtype), "amax")

    def compute(self) -> dict[str, Tensor]:
        """Per class `(C,)`: hoyer, treves_rolls, active_fraction; per class and unit `(C, U)`: mean, variance, active.

        Also `highest` `(C, U)`, the highest activation, `count` `(C,)`, and `dead_units`, the number of units that are
        active for no sample. The two sparsities leave out samples without an active unit. All values of a class without
        samples are NaN, except the count.
        """
        count = self.count[:, None]
        mean = self.total / count
        return {
            "count": self.count,
            "hoyer": self.hoyer / self.valid,
            "treves_rolls": self.treves_rolls / self.valid,
            "active_fraction": self.active.mean(1) / self.count,
            "mean": mean,
            "variance": (self.square / count - mean.square()).clamp(min=0),
            "active": self.active / count,
            "highest": torch.where(count > 0, self.highest, torch.nan),
            "dead_units": (self.active.sum(0) == 0).sum(),
        }
