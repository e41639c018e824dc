"""Processes stop after the same batch, without asking each other at every one."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from typing_extensions import override

from lightning_ff._lightning import Stops
from lightning_ff.sweep import Placement


class Meeting(Placement):
    """All blocks are here; where processes meet anyway, they agree whether to stop.

    Args:
        stops: What this process wishes of the trainer.
        device: Where messages lie.
    """

    def __init__(self, stops: Stops, device: torch.device) -> None:
        self.stops, self.device = stops, device
        self._met = False

    def __deepcopy__(self, memo: Any) -> Placement:
        return Placement()  # of a copy of the network all blocks are here

    @override
    def meet(self) -> None:
        self._met = True

    @override
    def end_batch(self, trainer: Trainer) -> None:
        """Stop together: in the middle of an epoch where processes meet anyway, else at its end."""
        wishes = self.stops.wishes()
        if self._met or trainer.is_last_batch:
            self.agree()
            asked = torch.tensor(wishes, dtype=torch.int32, device=self.device)
            dist.all_reduce(asked, dist.ReduceOp.MAX)
            stop, end = asked.tolist()
            self.stops.grant(bool(stop), bool(end))
        self._met = False
