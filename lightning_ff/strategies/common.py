"""Base of the strategies for local learning: equal weights and statistics, stop sync, failure detection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import StrategyRegistry
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_ff._lightning import StopRequests, callbacks_of
from lightning_ff.learner import LocalLearner
from lightning_ff.learner.strategy import BlockwiseStrategy
from lightning_ff.objectives import Goodness
from lightning_ff.stage import Stage
from lightning_ff.strategies.failure_detector import FailureDetector
from lightning_ff.strategies.reduction import Average
from lightning_ff.strategies.stop_sync import StopSync
from lightning_ff.validate import check_text, check_type

if TYPE_CHECKING:
    from lightning.pytorch.strategies import ParallelStrategy as Base
else:
    Base = object


def register(name: str, strategy: type, **arguments: Any) -> None:
    """Register a strategy with these arguments under a name."""
    if name not in StrategyRegistry:
        StrategyRegistry.register(name, strategy, description=f"{strategy.__name__} for local learning", **arguments)


class LocalStrategy(BlockwiseStrategy, Base):
    """Mixin before a strategy of Lightning: adds what data parallelism of blocks needs."""

    _requests: StopRequests
    _detector: FailureDetector | None = None
    _statistics: Mapping[str, list[Tensor]] = MappingProxyType({})  # by block
    _peers: Any = None  # group of the processes that hold the same blocks; None is all

    @property
    def learner(self) -> LocalLearner:
        """The module that is trained."""
        if not isinstance(self.lightning_module, LocalLearner):
            raise TypeError(
                f"{type(self).__name__} trains block by block, and {type(self.lightning_module).__name__} is no "
                "LocalLearner: use strategy='ddp'"
            )
        return self.lightning_module

    @property
    @override
    def replicas(self) -> int:
        return self.world_size

    @override
    def connect(self, model: LightningModule) -> None:
        super().connect(model)
        self.learner  # noqa: B018  raises for another module

    @override
    def setup(self, trainer: Trainer) -> None:
        self._requests = StopRequests(trainer)
        super().setup(trainer)
        callbacks = callbacks_of(trainer)
        sync = StopSync(self._requests, self.root_device, self.check_order)
        self._requests.call_after_batch(sync.after_batch)
        callbacks[:] = [*(each for each in callbacks if not isinstance(each, StopSync)), sync]

    @override
    def setup_environment(self) -> None:
        super().setup_environment()
        if self.world_size > 1 and self._detector is None:
            assert self.cluster_environment is not None
            self._detector = FailureDetector(self.cluster_environment.main_address)

    def check_order(self) -> None:
        """Raise if a process of a pipeline has read different samples."""

    def broadcast_weights(self) -> None:
        """Broadcast the first process's weights and statistics to all processes."""
        for tensor in chain(self.learner.parameters(), self.learner.buffers()):
            dist.broadcast(tensor.detach(), 0)

    @override
    def on_exception(self, exception: BaseException) -> None:
        if self._detector is not None:
            self._detector.failed(exception)
        super().on_exception(exception)

    @override
    def teardown(self) -> None:
        if self._detector is not None:
            self._detector.close()
            self._detector = None
        if isinstance(self.lightning_module, LocalLearner):
            self.learner.network.stage = Stage()
        super().teardown()

    @override
    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: LightningModule | nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        result = super().optimizer_step(optimizer, closure, model, **kwargs)
        if self.learner.local_optimizers.name_of(optimizer) is None:
            self._average_statistics()
        return result

    @override
    def on_train_start(self) -> None:
        super().on_train_start()
        network, optimizers = self.learner.network, self.learner.local_optimizers
        found: dict[str, list[Tensor]] = {}
        for k, (name, block) in enumerate(zip(network.names, network.stack, strict=True)):
            owner = optimizers.owner(block)
            trains = owner is not None or next(block.parameters(), None) is None  # without weights it has that mode too
            if network.stage.owns(k) and trains:
                found.setdefault(owner or name, []).extend(_statistics(block))
        self._statistics = {name: buffers for name, buffers in found.items() if buffers}

    @torch.no_grad()
    def _average_statistics(self) -> None:
        """Average the running statistics over the processes that hold the same blocks."""
        if self._statistics and self.replicas > 1:
            buffers = [*chain.from_iterable(self._statistics.values())]
            Average(self._peers).start(buffers).into(buffers)

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        batches = self.learner.trainer.num_training_batches
        if batch_idx == 0 and batches != float("inf"):
            count = torch.tensor([batches, -batches], device=self.root_device)
            dist.all_reduce(count, dist.ReduceOp.MAX)
            most, least = int(count[0]), -int(count[1])
            if most != least:
                raise ValueError(
                    f"processes have from {least} to {most} training batches, so that some would wait forever: give "
                    "each process the same number, such as by a DistributedSampler"
                )


def _statistics(block: nn.Module) -> list[Tensor]:
    """Running statistics of a block: its floating-point buffers."""
    return [
        buffer
        for module in block.modules()
        if not isinstance(module, nn.SyncBatchNorm)  # whose statistics are equal already
        and not (isinstance(module, Goodness) and module.fitted)  # fitted to sums over all processes
        for buffer in module.buffers(recurse=False)
        if buffer.is_floating_point()
    ]


def check_group(process_group_backend: Any, timeout: Any) -> None:
    """Check the arguments of a process group."""
    check_text("process_group_backend", process_group_backend, 'give "nccl", "gloo" or another backend, or None')
    check_type("timeout", timeout, timedelta, "give a datetime.timedelta")
    if timeout <= timedelta(0):
        raise ValueError(f"timeout={timeout}: must be above 0")
