"""A few samples of every class, selected by index, independent of their order and of the number of processes.

Shapes: N samples, C classes, U units.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from typing_extensions import override

from lightning_ff.metrics.similarity import balanced_indices
from lightning_ff.validate import check_int


class ClassSamples(Metric):
    """Keeps the activations of at most N samples of every class, for measures that cannot be streamed.

    A duplicate sample, such as the padding of a distributed sampler, is kept once. See :func:`balanced_indices`.

    Args:
        num_classes: C.
        units: U.
        per_class: Number of samples of each class.
        seed: Seed of the selection.
        **kwargs: See torchmetrics' `Metric`.

    Raises:
        ValueError: per_class below 1.

    Example::

        >>> kept = ClassSamples(num_classes=2, units=1, per_class=1)
        >>> kept.update(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1, 0, 1]), torch.tensor([5, 6, 7]))
        >>> {name: values.tolist() for name, values in kept.compute().items()}
        {'index': [6, 5], 'label': [0, 1], 'h': [[2.0], [1.0]]}
    """

    full_state_update = False
    h: list[Tensor]
    label: list[Tensor]
    index: list[Tensor]

    def __init__(self, num_classes: int, units: int, per_class: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_int("num_classes", num_classes)
        check_int("units", units)
        check_int("per_class", per_class)
        if per_class < 1:
            raise ValueError(f"per_class={per_class}: must be at least 1")
        self.num_classes = num_classes
        self.units = units
        self.per_class = per_class
        self.seed = seed
        for name in ("h", "label", "index"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    @override
    def reset(self) -> None:
        """Remove all samples."""
        super().reset()
        # not empty lists: a process without samples would not know their dtype and shape in the gather
        none = torch.empty(0, dtype=torch.int64, device=self.device)
        self.h, self.label, self.index = [torch.empty(0, self.units, device=self.device)], [none], [none]

    def update(self, h: Tensor, label: Tensor, index: Tensor) -> None:
        """Add activations `(N, U)` of classes `(N,)` and sample indices `(N,)`."""
        self.h.append(h.detach().float())
        self.label.append(label)
        self.index.append(index)
        if sum(len(part) for part in self.label) > 2 * self.per_class * self.num_classes:
            for name, values in self._selected().items():
                setattr(self, name, [values])

    def compute(self) -> dict[str, Tensor]:
        """`index` `(S,)`, `label` `(S,)` and `h` `(S, U)` of the kept samples, sorted by class and index."""
        return self._selected()

    def _selected(self) -> dict[str, Tensor]:
        values = {name: dim_zero_cat(getattr(self, name)) for name in ("index", "label", "h")}
        rows = balanced_indices(values["label"], self.per_class, values["index"], seed=self.seed)
        return {name: entries[rows] for name, entries in values.items()}
