"""Values of a log interval on their way to all processes of a pipeline, which go on learning meanwhile."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class _Letter(NamedTuple):
    due: int
    step: int
    work: Any
    parts: list[Tensor]


class News(NamedTuple):
    """What all processes know of a log interval.

    Attributes:
        values: Means over the processes that have a value, by name.
        step: Count of batches when it was sent.
        flags: Of each flag, the largest of all processes.
    """

    values: dict[str, float]
    step: int
    flags: list[int]


class Post:
    """Gathers values from all processes; nobody waits for them before they are due.

    The last process of a pipeline is as many batches behind the first as there are others before it. Of a message that
    all send after the same batch, everybody's part has come so many batches later.

    Args:
        names: Of all values that any process may send; the same in all.
        patience: Batches from when values are sent to when they are due.
        device: Where messages lie.
    """

    def __init__(self, names: list[str], patience: int, device: torch.device) -> None:
        self.names, self.patience, self.device = names, patience, device
        self._batch = 0
        self._letters: deque[_Letter] = deque()

    def send(self, values: dict[str, float], step: int, flags: Tensor) -> None:
        """Send values by name, and flags `(F,)`, whole numbers; every process calls this after the same batches."""
        known = [name in values for name in self.names]
        numbers = torch.tensor([*(values.get(name, 0.0) for name in self.names), *known], dtype=torch.float64)
        own = torch.cat((numbers.to(self.device), flags.to(self.device, torch.float64)))
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        work = dist.all_gather(parts, own, async_op=True)
        self._letters.append(_Letter(self._batch + self.patience, step, work, parts))

    def next_batch(self) -> None:
        """Another batch has been learned from."""
        self._batch += 1

    def due(self, everything: bool = False) -> list[News]:
        """What was sent long enough ago, or everything; waits for those who have not sent their part yet."""
        found = []
        while self._letters and (everything or self._letters[0].due <= self._batch):
            found.append(self._open())
        return found

    def here(self) -> list[News]:
        """What has come already, due or not; waits for nobody."""
        found = []
        while self._letters and self._letters[0].work.is_completed():
            found.append(self._open())
        return found

    def _open(self) -> News:
        letter, count = self._letters.popleft(), len(self.names)
        letter.work.wait()
        parts = torch.stack(letter.parts).cpu()
        totals, known = parts[:, :count].sum(0).tolist(), parts[:, count : 2 * count].sum(0).tolist()
        means = {name: total / times for name, total, times in zip(self.names, totals, known, strict=True) if times}
        return News(means, letter.step, parts[:, 2 * count :].amax(0).int().tolist())
