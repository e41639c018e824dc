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

from lightning_ff.strategies.common import LocalStrategy, check_group
from lightning_ff.strategies.reduction import Average
from lightning_ff.validate import check_choice


class LocalDDPStrategy(LocalStrategy, DDPStrategy):
    """Data parallelism for local learning: `Trainer(strategy="ff_ddp")`.

    The module is not wrapped. When the backward of a block ends, one asynchronous all-reduce of its flat gradients is
    launched, and the next block runs in the meantime; the block's step waits for it. Every gradient is sent once per
    step, in one message per block. Nothing is sent between the steps of accumulated gradients.

    Gradients and running statistics are averaged over processes. With batches of equal size and losses that are means
    over samples this equals the run of one process on all of them. A loss that depends on the whole batch (peer
    normalisation), or such a layer (batch norm without `sync_batchnorm`), sees the batch of its process only. The
    gradient of a parameter that the loss of a process does not use is 0 there. Processes need the same number of
    batches. A stop request (`max_time`, `trainer.should_stop`, SIGTERM) takes effect in all processes at the next log
    interval or end of an epoch.

    Args:
        compression: "bf16" sends gradients in half the bytes; None in their own dtype.
        process_group_backend: "nccl", "gloo" or another backend of torch; None chooses by the device.
        timeout: How long a collective waits for the other processes before it fails.
        start_method: How processes are started: "popen", "spawn", "fork" or "forkserver".
        accelerator: Set by the Trainer.
        parallel_devices: Set by the Trainer.
        cluster_environment: Environment that the processes run in; None detects it.
        checkpoint_io: Reads and writes checkpoints; None is Lightning's default.
        precision_plugin: Set by the Trainer.

    Raises:
        ValueError: an argument is not one of its choices, or processes have different numbers of batches.
        TypeError: the module is not a LocalLearner.
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
        check_choice("start_method", start_method, ("popen", "spawn", "fork", "forkserver"))
        check_group(process_group_backend, timeout)
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
        self._running_statistics: dict[str, tuple[list[Tensor], Average]] = {}  # of blocks that learn

    @override
    def configure_ddp(self) -> None:
        """Broadcast the weights; the module is not wrapped."""
        self.broadcast_weights()

    @override
    def reduce_gradients(self, names: Sequence[str]) -> None:
        """Launch the all-reduce of the gradients of these optimizers' blocks."""
        optimizers, unused = self.learner.local_optimizers, self.learner.sweep.unused
        for name in names if self.replicas > 1 else ():
            self._reduce(name, [p for p in optimizers.parameters(name) if p.requires_grad and id(p) not in unused])

    def _reduce(self, name: str, parameters: list[Tensor]) -> None:
        """Launch the all-reduce of a block's gradients, and of its running statistics."""
        compression = torch.bfloat16 if self.compression else None
        average = self._averages.setdefault(name, Average(self._peers, compression))
        average.start([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
        self._in_flight[name] = parameters
        if name in self._running_statistics:
            buffers, average = self._running_statistics[name]
            average.start(buffers)
        for parameter in parameters:
            parameter.grad = None  # its memory, still in the CPU cache, is reused by the next block

    @contextmanager
    @override
    def block_backward_sync(self) -> Iterator[None]:
        """No-op: gradients are reduced only when the learner calls `reduce_gradients`."""
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
        """Wait for a block's all-reduce, and write the means to its gradients and running statistics."""
        if name not in self._in_flight:
            return
        for parameter, gradient in zip(self._in_flight.pop(name), self._averages[name].wait(), strict=True):
            # optimizers need a gradient in the memory format of its parameter
            contiguous = parameter.is_contiguous()
            parameter.grad = gradient if contiguous else torch.empty_like(parameter).copy_(gradient)
        if name in self._running_statistics:
            buffers, average = self._running_statistics[name]
            average.into(buffers)

    @override
    def on_train_start(self) -> None:
        super().on_train_start()
        learns = self.learner.local_optimizers.by_block if self.replicas > 1 else ()
        self._running_statistics = {
            name: (buffers, Average(self._peers)) for name, buffers in self._statistics.items() if name in learns
        }
        self._statistics = {name: buffers for name, buffers in self._statistics.items() if name not in learns}

    @override
    def teardown(self) -> None:
        self._in_flight.clear()
        self._running_statistics.clear()
        self._averages.clear()
        super().teardown()
