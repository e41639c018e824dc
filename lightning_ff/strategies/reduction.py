"""One flat message of a group of tensors, averaged over all processes while other work goes on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Average:
    """Starts to average tensors over processes; `wait` gives the means.

    Tensors of one type and device travel in one message.

    Args:
        tensors: Values, the same number and shapes in every process.
        compression: Type that they travel in; None is their own.
        group: Processes whose values they are; None is all.
        kept: Memory of messages before, to be used again once their means are needed no more.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        compression: torch.dtype | None = None,
        group: Any = None,
        kept: dict[Any, Tensor] | None = None,
    ) -> None:
        self._groups = []
        kept = {} if kept is None else kept
        kind = {i: (str(tensor.dtype), str(tensor.device)) for i, tensor in enumerate(tensors)}
        share = 1 / dist.get_world_size(group)
        for key, places in groupby(sorted(kind, key=lambda i: (kind[i], i)), kind.__getitem__):
            chosen = list(places)
            parts = [tensors[i].detach().reshape(-1) for i in chosen]
            flat = kept.setdefault(key, parts[0].new_empty(0))
            torch.cat(parts, out=flat.resize_(sum(part.numel() for part in parts))).mul_(share)
            sent = flat if compression is None else flat.to(compression)
            self._groups.append((chosen, flat, sent, dist.all_reduce(sent, group=group, async_op=True)))
        self._like = list(tensors)

    def wait(self) -> list[Tensor]:
        """The means, in the order of the tensors: views of the message."""
        means = list(self._like)
        for chosen, flat, sent, work in self._groups:
            work.wait()
            if sent is not flat:
                flat.copy_(sent)
            for i, part in zip(chosen, flat.split([self._like[i].numel() for i in chosen]), strict=True):
                means[i] = part.view(self._like[i].shape)
        return means
