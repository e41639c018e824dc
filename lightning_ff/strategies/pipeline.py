"""`ff_pipeline`: consecutive blocks in each process; activations go forward, and nothing comes back."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.constants import default_pg_timeout
from torch.optim import Optimizer
from torch.utils.data import DataLoader, RandomSampler
from typing_extensions import override

from lightning_ff._lightning import leave_samplers, meet_for_no_signal
from lightning_ff.kinds import sizes
from lightning_ff.strategies.balance import balanced, costs, ranges
from lightning_ff.strategies.common import LocalStrategy
from lightning_ff.strategies.link import Link
from lightning_ff.strategies.stage import SameOrder, Stage
from lightning_ff.sweep import Placement

_FOREVER = timedelta(days=365)  # a process may wait as long for the one before it as that computes


class LocalPipelineStrategy(LocalStrategy, DDPStrategy):
    """A pipeline without bubbles: `Trainer(strategy="ff_pipeline")`.

    Each process trains consecutive blocks. A batch's activations go from process to process, and while one learns
    batch t, the one before it learns t + 1: local learning sends no gradients back, so nobody waits for them. Weights
    are exactly those of one process, unless blocks draw random numbers (dropout).

    All processes read all batches, in the same order, with the batch size of one process; the first makes the
    negatives. Processes meet at log intervals, at the ends of epochs and for checkpoints, which are as of one process.

    Args:
        blocks: Number of consecutive blocks of each process; None measures blocks, and gives the slowest process least.
        process_group_backend: "nccl", "gloo" or another one of torch's; None goes by the device.
        timeout: Until a process that waits for the others, where all meet, gives up.
        start_method: How processes are started: "popen", "spawn", "fork" or "forkserver".
        accelerator: Set by the Trainer.
        parallel_devices: Set by the Trainer.
        cluster_environment: Where the processes run; None finds out.
        checkpoint_io: How checkpoints are written; None is Lightning's own way.
        precision_plugin: Set by the Trainer.

    Raises:
        ValueError: numbers of blocks do not fit, a segment would be cut, or something needs all blocks in one process.
        TypeError: the module is no learner of this package.
    """

    def __init__(
        self,
        blocks: list[int] | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta = default_pg_timeout,
        start_method: Literal["popen", "spawn", "fork", "forkserver"] = "popen",
        accelerator: Accelerator | None = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: CheckpointIO | None = None,
        precision_plugin: Precision | None = None,
    ) -> None:
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
        if blocks is not None:
            sizes("blocks", blocks, "give the number of blocks of each process, such as [3, 2], or None")
        self.blocks = blocks
        self._groups: list[Any] = []

    @property
    @override
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        return {"num_replicas": 1, "rank": 0}

    @override
    def setup_environment(self) -> None:
        super().setup_environment()
        self._groups = [
            dist.new_group([rank, rank + 1], _FOREVER, self.process_group_backend)
            for rank in range(self.world_size - 1)
        ]

    @override
    def setup(self, trainer: Trainer) -> None:
        check(self, trainer)
        leave_samplers(trainer)
        meet_for_no_signal(trainer)
        super().setup(trainer)
        self._place()

    def _place(self) -> None:
        """Give every process its blocks, and links to its neighbours."""
        learner, rank = self.learner, self.global_rank
        split = [self.blocks]
        if rank == 0 and self.blocks is None:
            split = [balanced(costs(learner.network), self.world_size)]
        dist.broadcast_object_list(split, 0)
        owned = ranges(split[0] or [])
        before = self._groups[rank - 1] if rank else None
        after = self._groups[rank] if rank + 1 < self.world_size else None
        self._link = Link(before, after, self.root_device)
        learner.network.placement = Stage(learner, owned, self._link)
        if after is not None:  # the last process judges, and the others' metrics are reduced with its
            warnings.filterwarnings("ignore", "The ``compute`` method of metric MulticlassAccuracy was called before")

    @override
    def configure_ddp(self) -> None:
        """Begin with equal weights; nothing is wrapped."""
        self.begin_equal()

    @override
    def process_dataloader(self, dataloader: object) -> object:
        if type(dataloader) is DataLoader and isinstance(dataloader.sampler, RandomSampler):
            return SameOrder(dataloader)
        return dataloader

    @override
    def _average_statistics(self) -> None:
        """Nothing: a block's statistics are its own process's."""

    @override
    def on_train_end(self) -> None:
        super().on_train_end()
        self._stage.whole()

    @property
    def _stage(self) -> Stage:
        placement = self.learner.network.placement
        assert isinstance(placement, Stage)
        return placement

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        self._stage.whole()
        return super().lightning_module_state_dict()

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return self._stage.optimizer_state(super().optimizer_state(optimizer))

    @override
    def teardown(self) -> None:
        network = self.learner.network
        if isinstance(network.placement, Stage):
            self._link.close()
            network.placement = Placement()
        for group in self._groups:
            if group is not dist.GroupMember.NON_GROUP_MEMBER:
                dist.destroy_process_group(group)
        self._groups = []
        super().teardown()


def check(strategy: LocalPipelineStrategy, trainer: Trainer) -> None:
    """Refuse what would need all blocks in one process."""
    learner, count = strategy.learner, strategy.world_size
    blocks = len(learner.blocks)
    if learner.objective != "local":
        raise ValueError(
            f"segments={learner.objective!r} makes all blocks one segment, which ff_pipeline cannot cut: use "
            "strategy='ff_ddp'"
        )
    if blocks < count:
        raise ValueError(f"{blocks} blocks are too few for devices={count} of ff_pipeline: use strategy='ff_ddp'")
    split = strategy.blocks
    if split is not None and (len(split) != count or sum(split) != blocks or min(split) < 1):
        raise ValueError(
            f"blocks={split} of ff_pipeline must be {count} numbers of at least 1, one for each process, that add up "
            f"to {blocks}"
        )
    if trainer.precision == "16-mixed":
        raise ValueError("precision='16-mixed' has one loss scale for all blocks: use precision='bf16-mixed'")
    negatives = learner.negatives
    if negatives is not None and negatives.needs_scores:
        raise ValueError(
            f"negatives={negatives} need the scores of all blocks before the first one learns: use WrongLabel(), or "
            "strategy='ff_ddp'"
        )
    watching = [type(each).__name__ for each in trainer.callbacks if getattr(each, "needs_all_blocks", False)]  # type: ignore[attr-defined]
    if watching:
        raise ValueError(f"{watching[0]} looks at all blocks in one process: remove it, or use strategy='ff_ddp'")
