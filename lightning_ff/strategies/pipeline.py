"""`ff_pipeline`: consecutive blocks in each process; activations are sent forward, and no gradients back."""

from __future__ import annotations

import warnings
from itertools import accumulate, islice
from typing import Any

import lightning.pytorch.callbacks
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, RandomSampler
from typing_extensions import override

from lightning_ff._lightning import callbacks_of, disable_distributed_sampler
from lightning_ff.learner import LocalLearner
from lightning_ff.strategies.balance import balanced, costs, ranges
from lightning_ff.strategies.ddp import LocalDDPStrategy
from lightning_ff.strategies.groups import Groups
from lightning_ff.strategies.p2p import P2P
from lightning_ff.strategies.pipeline_stage import PipelineStage, SameOrder
from lightning_ff.validate import check_int, check_ints


class LocalPipelineStrategy(LocalDDPStrategy):
    """A pipeline without bubbles: `Trainer(strategy="ff_pipeline")`.

    Each process trains consecutive blocks. The activations of a batch are sent from process to process; while one
    trains on batch t, the one before it trains on t + 1. Local learning sends no gradients back, so no process waits
    for them. Weights equal exactly those of one process, unless blocks draw random numbers (dropout).

    All processes of a pipeline read the same batches in the same order; the first makes the negatives. They synchronize
    at log intervals, at the ends of epochs and for checkpoints, which equal those of one process. A stop request
    (`max_time`, `trainer.should_stop`, SIGTERM) takes effect there. A pipeline of S stages drains and fills again at a
    log interval, which takes the time of S - 1 batches: raise `log_every_n_steps` for long pipelines.

    With fewer stages than processes there are several pipelines of consecutive ranks: each reads its share of every
    batch, and the gradients of a block are averaged over the processes that train it, as in `ff_ddp`.

    Args:
        stages: Number of processes of one pipeline; None is all processes, or the length of `blocks`.
        blocks: Number of consecutive blocks of each stage; None times the blocks and balances the stages.
        **kwargs: See :class:`~lightning_ff.LocalDDPStrategy`; `compression` is of gradients between pipelines.

    Raises:
        ValueError: numbers of blocks or processes do not fit, a segment would be cut, or something needs all blocks in
            one process.
        TypeError: the module is not a LocalLearner.
    """

    def __init__(
        self,
        stages: int | None = None,
        blocks: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if blocks is not None:
            check_ints("blocks", blocks, "give the number of blocks of each stage, such as [3, 2], or None")
        if stages is not None:
            check_int("stages", stages, "give the number of processes of one pipeline, or None for all")
            if stages < 1:
                raise ValueError(f"stages={stages} must be at least 1 process of one pipeline")
            if blocks is not None and len(blocks) != stages:
                raise ValueError(f"blocks={blocks} must be stages={stages} numbers, one for each stage")
        self.blocks = blocks
        self._stages = len(blocks) if stages is None and blocks is not None else stages
        self._groups = Groups()
        self._failed = False
        self._final_optimizer_state: dict[str, Any] = {}

    @property
    def stages(self) -> int:
        """Number of processes of one pipeline."""
        return self._stages or self.num_nodes * self.num_processes

    @property
    @override
    def replicas(self) -> int:
        return self.world_size // self.stages

    @property
    @override
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        return {"num_replicas": self.replicas, "rank": self.global_rank // self.stages}

    @override
    def setup_environment(self) -> None:
        processes = self.num_nodes * self.num_processes
        if processes % self.stages:
            raise ValueError(
                f"{processes} processes are no whole number of pipelines of {self.stages} stages: choose `stages` or "
                "`blocks` of ff_pipeline, or devices and nodes, so that they are"
            )
        with isolate_rng(include_cuda=False):  # Lightning seeds again here, unlike with one process
            super().setup_environment()
        self._groups.make(self.stages, self.replicas, self.process_group_backend, self.timeout)
        self._peers = self._groups.peers

    @override
    def setup(self, trainer: Trainer) -> None:
        check(self, trainer)
        if self.replicas == 1:
            disable_distributed_sampler(trainer)
        self._failed = False
        super().setup(trainer)
        self._assign()

    def _assign(self) -> None:
        """Assign the blocks of every process, and connect it to its neighbours."""
        split = [self.blocks]
        if self.global_rank == 0 and self.blocks is None:
            split = [_balanced(self.learner, self.stages)]
        dist.broadcast_object_list(split, 0)
        self._p2p = P2P(self._groups.before, self._groups.after, self.root_device)
        stage = self.global_rank % self.stages
        owned = ranges(split[0] or [])
        network = self.learner.network
        network.stage = PipelineStage(network, owned, stage, self._p2p, self._groups.pipeline)
        if stage + 1 < self.stages:  # only the last process updates metrics; the others take part in their reduction
            warnings.filterwarnings("ignore", "The ``compute`` method of metric MulticlassAccuracy was called before")
        # every process steps the schedulers of all blocks, for checkpoints, but only the optimizers of its own blocks
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step\\(\\)` before `optimizer.step")

    @override
    def on_exception(self, exception: BaseException) -> None:
        self._failed = True
        super().on_exception(exception)

    @override
    def process_dataloader(self, dataloader: object) -> object:
        if type(dataloader) is DataLoader and isinstance(dataloader.sampler, RandomSampler):
            return SameOrder(dataloader, self._groups.pipeline)
        return dataloader

    @override
    def on_train_end(self) -> None:
        super().on_train_end()
        assert self._stage is not None
        self._stage.broadcast_weights()
        self._final_optimizer_state = self.optimizer_state(self.learner.local_optimizers)

    @property
    def _stage(self) -> PipelineStage | None:
        """This process's stage; None before and after the run, when every process has all blocks."""
        if self.lightning_module is None:
            return None
        stage = self.learner.network.stage
        return stage if isinstance(stage, PipelineStage) else None

    @override
    def gather_values(self, values: dict[str, Any]) -> dict[str, Any]:
        return values if self._stage is None else self._stage.gather_values(values)

    @override
    def compare_labels(self, label: Tensor) -> None:
        if self._stage is not None:
            self._stage.compare_labels(label)

    @override
    def check_order(self) -> None:
        if self._stage is not None:
            self._stage.check_order()

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        if self._stage is not None:
            self._stage.broadcast_weights()
        return super().lightning_module_state_dict()

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        if self._stage is None:
            return self._final_optimizer_state or super().optimizer_state(optimizer)
        return self._stage.optimizer_state(super().optimizer_state(optimizer), self.learner.local_optimizers)

    @override
    def teardown(self) -> None:
        if self._stage is not None:
            self._p2p.close(0.5 if self._failed else 10.0)
        self._groups.end()
        super().teardown()


def _balanced(learner: LocalLearner, stages: int) -> list[int]:
    """Number of blocks of each stage, of whole segments with balanced times."""
    seconds, segments = costs(learner.network), learner.segmentation.every
    counts = iter(balanced([sum(seconds[k] for k in segment.blocks) for segment in segments], stages))
    lengths = iter([len(segment.blocks) for segment in segments])
    return [sum(islice(lengths, count)) for count in counts]


def check(strategy: LocalPipelineStrategy, trainer: Trainer) -> None:
    """Raise for anything that needs all blocks in one process."""
    learner, count = strategy.learner, strategy.stages
    blocks = len(learner.blocks)
    if learner.segmentation.whole or not learner.segmentation.fixed:
        what = "all blocks one segment" if learner.segmentation.whole else "segments that overlap"
        raise ValueError(
            f"segments={learner.segments!r} makes {what}, which ff_pipeline cannot cut: use strategy='ff_ddp'"
        )
    if not learner.credit.local:
        raise ValueError(
            f"credit={learner.credit} looks at all blocks in one process before any of them learns: use "
            "strategy='ff_ddp'"
        )
    if strategy.replicas > 1 and any(block.fitted for block in learner.blocks):
        raise ValueError(
            "a fitted goodness is summed over all processes, and these are several pipelines: use one pipeline, or "
            "strategy='ff_ddp'"
        )
    segments = learner.segmentation.every
    if len(segments) < count:
        what = "blocks" if len(segments) == blocks else "segments"
        raise ValueError(f"{len(segments)} {what} are too few for {count} stages of ff_pipeline: use strategy='ff_ddp'")
    split = strategy.blocks
    if split is not None and (len(split) != count or sum(split) != blocks or min(split) < 1):
        raise ValueError(
            f"blocks={split} of ff_pipeline must be {count} numbers of at least 1, one for each stage, that add up "
            f"to {blocks}"
        )
    if split is not None and not {*accumulate(split)} <= {segment.blocks[-1] + 1 for segment in segments}:
        raise ValueError(f"blocks={split} of ff_pipeline cuts one of segments={learner.segments}: cut between them")
    if trainer.precision == "16-mixed":
        raise ValueError("precision='16-mixed' has one loss scale for all blocks: use precision='bf16-mixed'")
    negatives = learner.negatives
    if negatives is not None and negatives.needs_scores:
        raise ValueError(
            f"negatives={negatives} need the scores of all blocks before the first one learns: use WrongLabel(), or "
            "strategy='ff_ddp'"
        )
    unsupported = [type(each).__name__ for each in callbacks_of(trainer) if getattr(each, "needs_all_blocks", False)]
    averaging = getattr(lightning.pytorch.callbacks, "WeightAveraging", ())  # Lightning 2.6 has it
    unsupported += [type(each).__name__ for each in callbacks_of(trainer) if isinstance(each, averaging)]
    if unsupported:
        raise ValueError(f"{unsupported[0]} looks at all blocks in one process: remove it, or use strategy='ff_ddp'")
