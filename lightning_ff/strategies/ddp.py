"""`ff_ddp`: every process trains all blocks on its share of the batch; gradients are averaged block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.pytorch import LightningModule
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.constants import default_pg_timeout
from torch.optim import Optimizer
from typing_extensions import override

from lightning_ff.strategies.common import LocalStrategy
from lightning_ff.strategies.reduction import Average


class LocalDDPStrategy(LocalStrategy, DDPStrategy):
    """Data parallelism for many local backwards: `Trainer(strategy="ff_ddp")`.

    The module is not wrapped. When the backward of a block ends, one asynchronous all-reduce of its flat gradients is
    launched, and the next block runs meanwhile; the block's step waits for it. Every gradient is sent once per step,
    in as many messages as there are blocks. Between steps of accumulated gradients nothing is sent.

    Gradients and running statistics become means over processes. With batches of equal size and losses that are means
    over samples that is the run of one process on all of them; where a loss looks across the batch, such as that of
    peer normalisation, or a layer does, such as batch norm without `sync_batchnorm`, it is as in any data parallelism.
    A parameter that the loss of a process does not reach counts as 0 there. Processes need the same number of batches.
    A request to stop (`max_time`, `trainer.should_stop`, SIGTERM) is agreed on at the next log interval or end of an
    epoch.

    Args:
        compression: "bf16" sends gradients in half the bytes; None in their own type.
        process_group_backend: "nccl", "gloo" or another one of torch's; None goes by the device.
        timeout: Until a process that waits for the others gives up.
        start_method: How processes are started: "popen", "spawn", "fork" or "forkserver".
        accelerator: Set by the Trainer.
        parallel_devices: Set by the Trainer.
        cluster_environment: Where the processes run; None finds out.
        checkpoint_io: How checkpoints are written; None is Lightning's own way.
        precision_plugin: Set by the Trainer.

    Raises:
        ValueError: an argument is not one of its choices, or processes have different numbers of batches.
        TypeError: the module is no learner of this package.
    """

    def __init__(
        self,
        compression: Literal["bf16"] | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta = default_pg_timeout,
        start_method: Literal["popen", "spawn", "fork", "forkserver"] = "popen",
        accelerator: Accelerator | None = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: CheckpointIO | None = None,
        precision_plugin: Precision | None = None,
    ) -> None:
        if compression not in (None, "bf16"):
            raise ValueError(f"compression={compression!r}: choose 'bf16', or None")
        super().__init__(
            accelerator=accelerator,
            parallel_devices=parallel_devices,
            cluster_environment=cluster_environment,
            checkpoint_io=checkpoint_io,
            precision_plugin=precision_plugin,
            process_group_backend=process_group_backend,
            timeout=timeout,
            start_method=start_method,
        )
        self.compression, self.timeout = compression, timeout
        self._averages: dict[str, Average] = {}
        self._in_flight: dict[str, list[Tensor]] = {}
        self._moving: dict[str, tuple[list[Tensor], Average]] = {}  # running statistics of blocks that learn

    @override
    def configure_ddp(self) -> None:
        """Begin with equal weights; nothing is wrapped."""
        self.begin_equal()

    @override
    def reduce_gradients(self, names: Sequence[str]) -> None:
        """Launch the all-reduce of the gradients of these optimizers' blocks."""
        for name in names if self.replicas > 1 else ():
            self._reduce(name, [p for p in self.learner.local_optimizers.parameters(name) if p.requires_grad])

    def _reduce(self, name: str, parameters: list[Tensor]) -> None:
        """Launch the all-reduce of a block's gradients, and of its running statistics."""
        compression = torch.bfloat16 if self.compression else None
        average = self._averages.setdefault(name, Average(self._peers, compression))
        average.start([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
        self._in_flight[name] = parameters
        if name in self._moving:
            buffers, average = self._moving[name]
            average.start(buffers)
        for parameter in parameters:
            parameter.grad = None  # its memory, still in the cache, is the next block's

    @contextmanager
    @override
    def block_backward_sync(self) -> Iterator[None]:
        """Nothing to hold: gradients are reduced when the learner asks for it."""
        yield

    @override
    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: LightningModule | nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        name = self.learner.local_optimizers.name_of(optimizer)
        for each in [*self._in_flight] if name is None else [name]:
            self._wait(each)
        return super().optimizer_step(optimizer, closure, model, **kwargs)

    def _wait(self, name: str) -> None:
        """Wait for a block's all-reduce, and take the means as its gradients and running statistics."""
        if name not in self._in_flight:
            return
        for parameter, gradient in zip(self._in_flight.pop(name), self._averages[name].wait(), strict=True):
            # optimizers want a gradient that lies in memory as its parameter does
            contiguous = parameter.is_contiguous()
            parameter.grad = gradient if contiguous else torch.empty_like(parameter).copy_(gradient)
        if name in self._moving:
            buffers, average = self._moving[name]
            average.into(buffers)

    @override
    def on_train_start(self) -> None:
        super().on_train_start()
        learns = self.learner.local_optimizers.by_block if self.replicas > 1 else ()
        self._moving = {
            name: (buffers, Average(self._peers)) for name, buffers in self._statistics.items() if name in learns
        }
        self._statistics = {name: buffers for name, buffers in self._statistics.items() if name not in learns}

    @override
    def teardown(self) -> None:
        self._in_flight.clear()
        self._moving.clear()
        self._averages.clear()
        super().teardown()
