"""`ff_fsdp2`: every process keeps a shard of each block's weights, gathered while the block runs."""

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
from lightning_ff.strategies.common import LocalStrategy, check_group
from lightning_ff.validate import check_flag


class LocalFSDP2Strategy(LocalStrategy, ModelParallelStrategy):
    """Sharded weights for local learning: `Trainer(strategy="ff_fsdp2")`.

    Applies `torch.distributed.fsdp.fully_shard` to every block, and to a readout that learns, but not to the whole
    network: a block's weights are gathered when it runs, and freed after its backward, or its forward where there is
    none. Batches are split and gradients averaged as in data parallelism. If processes have different numbers of
    evaluation batches, all weights stay gathered until the evaluation ends.

    Args:
        save_distributed_checkpoint: Every process writes its shard into a folder; False gathers a full checkpoint on
            the first process, in one file, which also loads without this strategy.
        process_group_backend: "nccl", "gloo" or another backend of torch; None chooses by the device.
        timeout: How long a collective waits for the other processes before it fails.

    Raises:
        TypeError: the module is not a LocalLearner.
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
        timeout: timedelta = default_pg_timeout,
    ) -> None:
        check_flag("save_distributed_checkpoint", save_distributed_checkpoint)
        check_group(process_group_backend, timeout)
        super().__init__(
            data_parallel_size=1,
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self._sharded: list[Any] = []
        self._hooks: list[RemovableHandle] = []
        self._reshards = True

    @override
    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @override
    def connect(self, model: LightningModule) -> None:
        super().connect(model)
        learner = self.learner
        # set on the instance: Lightning refuses to average the weights of a class that overrides this hook
        learner.configure_model = lambda: self.shard(learner)  # type: ignore[method-assign]

    @override
    def on_validation_start(self) -> None:
        super().on_validation_start()
        trainer = self.learner.trainer
        self._start_evaluation(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)

    @override
    def on_test_start(self) -> None:
        super().on_test_start()
        self._start_evaluation(self.learner.trainer.num_test_batches)

    @override
    def on_predict_start(self) -> None:
        super().on_predict_start()
        self._start_evaluation(self.learner.trainer.num_predict_batches)

    @override
    def on_validation_end(self) -> None:
        super().on_validation_end()
        self._end_evaluation()

    @override
    def on_test_end(self) -> None:
        super().on_test_end()
        self._end_evaluation()

    @override
    def on_predict_end(self) -> None:
        super().on_predict_end()
        self._end_evaluation()

    def _start_evaluation(self, batches: Sequence[float]) -> None:
        """Keep weights gathered if numbers of batches differ: gathering needs all processes."""
        most = torch.tensor([sum(batches), -sum(batches)], device=self.root_device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        self._reshards = bool(most[0] == -most[1])
        for part in self._sharded:
            part.reshard() if self._reshards else part.unshard()

    def _end_evaluation(self) -> None:
        self._reshards = True
        for part in self._sharded:
            part.reshard()

    def _reshard(self, part: nn.Module, *_: Any) -> None:
        if self._reshards and not torch.is_grad_enabled():
            part.reshard()  # type: ignore[operator]

    @override
    def teardown(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._sharded = [], []
        self.learner.__dict__.pop("configure_model", None)
        super().teardown()

    def shard(self, learner: LocalLearner) -> None:
        """Shard every block, and a readout with parameters; called before the weights are moved to the device."""
        from torch.distributed.fsdp import FSDPModule, fully_shard
        from torch.distributed.tensor import DTensor

        if not learner.credit.local:
            raise ValueError(
                f"credit={learner.credit} runs the blocks outside of the sweep, where their weights are in shards: use "
                "strategy='ff_ddp'"
            )
        if not any(isinstance(p, DTensor) for p in learner.parameters()):  # sharded by an earlier fit
            self.broadcast_weights()
        parts: list[nn.Module] = [*learner.blocks, learner.network.readout]
        for part in parts:
            if next(part.parameters(), None) is not None and not isinstance(part, FSDPModule):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])
            if isinstance(part, FSDPModule):
                self._sharded.append(part)
                self._hooks.append(part.register_forward_hook(self._reshard))
