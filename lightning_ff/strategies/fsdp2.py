"""`ff_fsdp2`: every process keeps a share of each block's weights, gathered while the block runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.constants import default_pg_timeout
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from lightning_ff.learner import LocalLearner
from lightning_ff.strategies.common import LocalStrategy


class LocalFSDP2Strategy(LocalStrategy, ModelParallelStrategy):
    """Sharded weights for local learning: `Trainer(strategy="ff_fsdp2")`.

    `torch.distributed.fsdp.fully_shard` on every block, and on a readout that learns, but not on the whole: a block's
    weights are gathered when it runs, freed when its backward ends, or else its forward, and the next block's come.
    Batches are shared out, and gradients averaged, as in data parallelism. An evaluation in which processes have other
    numbers of batches keeps all weights gathered until it ends.

    Args:
        save_distributed_checkpoint: Every process writes its share, into a folder; False puts a whole checkpoint
            together on the first process, in one file, which runs without this strategy load too.
        process_group_backend: "nccl", "gloo" or another one of torch's; None goes by the device.
        timeout: Until a process that waits for the others gives up.

    Raises:
        TypeError: the module is no learner of this package.
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
        timeout: timedelta = default_pg_timeout,
    ) -> None:
        super().__init__(
            data_parallel_size=1,
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self._parts: list[Any] = []
        self._hooks: list[RemovableHandle] = []
        self._frees = True

    @override
    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @override
    def connect(self, model: LightningModule) -> None:
        super().connect(model)
        learner = self.learner
        # of this run alone: Lightning takes a class that has this hook for one that cannot be averaged
        learner.configure_model = lambda: self.shard(learner)  # type: ignore[method-assign]

    @override
    def on_validation_start(self) -> None:
        super().on_validation_start()
        trainer = self.learner.trainer
        self._begin(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)

    @override
    def on_test_start(self) -> None:
        super().on_test_start()
        self._begin(self.learner.trainer.num_test_batches)

    @override
    def on_predict_start(self) -> None:
        super().on_predict_start()
        self._begin(self.learner.trainer.num_predict_batches)

    @override
    def on_validation_end(self) -> None:
        super().on_validation_end()
        self._end()

    @override
    def on_test_end(self) -> None:
        super().on_test_end()
        self._end()

    @override
    def on_predict_end(self) -> None:
        super().on_predict_end()
        self._end()

    def _begin(self, batches: Sequence[float]) -> None:
        """Where processes have other numbers of batches, none can count on the others to gather a block for it."""
        most = torch.tensor([sum(batches), -sum(batches)], device=self.root_device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        self._frees = bool(most[0] == -most[1])
        for part in self._parts:
            part.reshard() if self._frees else part.unshard()

    def _end(self) -> None:
        self._frees = True
        for part in self._parts:
            part.reshard()

    def _free(self, part: nn.Module, *_: Any) -> None:
        if self._frees and not torch.is_grad_enabled():
            part.reshard()  # type: ignore[operator]

    @override
    def teardown(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._parts = [], []
        self.learner.__dict__.pop("configure_model", None)
        super().teardown()

    def shard(self, learner: LocalLearner) -> None:
        """Shard every block, and a readout with parameters; Lightning asks for it before the weights are placed."""
        from torch.distributed.fsdp import FSDPModule, fully_shard
        from torch.distributed.tensor import DTensor

        if not any(isinstance(p, DTensor) for p in learner.parameters()):  # of the fit before
            self.begin_equal()
        parts: list[nn.Module] = [*learner.blocks, learner.network.readout]
        for part in parts:
            if next(part.parameters(), None) is not None and not isinstance(part, FSDPModule):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])
            if isinstance(part, FSDPModule):
                self._parts.append(part)
                self._hooks.append(part.register_forward_hook(self._free))
