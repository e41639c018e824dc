"""All processes stop after the same batch, without a collective at every batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_ff._lightning import StopRequests, ends_interval


class StopSync(Callback):
    """Reduces stop requests over all processes at log intervals and ends of epochs, and checks the order of samples.

    Args:
        requests: Stop requests of this process.
        device: Device of the reduced tensor.
        check_order: Raises if a process of a pipeline has read different samples.
    """

    def __init__(self, requests: StopRequests, device: torch.device, check_order: Callable[[], None]) -> None:
        self.requests, self.device, self.check_order = requests, device, check_order

    def after_batch(self) -> None:
        """Called after all hooks of a training batch."""
        requested, trainer = self.requests.poll(), self.requests.trainer
        if ends_interval(trainer) or trainer.is_last_batch:
            self.check_order()
            reduced = torch.tensor(requested, dtype=torch.int32, device=self.device)
            dist.all_reduce(reduced, dist.ReduceOp.MAX)
            stop, end = reduced.tolist()
            self.requests.apply(bool(stop), bool(end))

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check_order()

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check_order()
