"""Processes stop after the same batch, without asking each other at every one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_ff._lightning import StopRequests, ends_interval


class StopSync(Callback):
    """At log intervals and the ends of epochs, all processes agree whether to stop, and that they read the same.

    Args:
        requests: What this process requests of the Trainer.
        device: Where messages lie.
        check_order: Raises where one process of a pipeline has read other samples.
    """

    def __init__(self, requests: StopRequests, device: torch.device, check_order: Callable[[], None]) -> None:
        self.requests, self.device, self.check_order = requests, device, check_order

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        asked = self.requests.take()
        if ends_interval(trainer) or trainer.is_last_batch:
            self.check_order()
            largest = torch.tensor(asked, dtype=torch.int32, device=self.device)
            dist.all_reduce(largest, dist.ReduceOp.MAX)
            stop, end = largest.tolist()
            self.requests.grant(bool(stop), bool(end))

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check_order()

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check_order()
