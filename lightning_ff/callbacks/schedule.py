"""Schedules in which blocks learn one after another, or in windows of epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar, TQDMProgressBar
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_ff._lightning import callbacks_of
from lightning_ff.batch import unpack
from lightning_ff.learner import LocalLearner
from lightning_ff.sweep import KeptOutputs, Schedule, Windows
from lightning_ff.sweep.schedule import Window, checked_windows
from lightning_ff.validate import check_int, check_ints, check_number, check_type


class WindowSchedule(Callback):
    """Every block, or segment, learns in its own windows of epochs; `max_epochs` is set to the end of the last one.

    Blocks after the last one that learns do not run. Outputs of frozen blocks before the first one that learns are
    computed once per sample and reused if that is exact: without augmentation, with fixed negatives
    (:class:`~lightning_ff.FixedPool`, all wrong labels, class mode), and with a loader that returns the samples'
    indices. Each of several processes keeps outputs of its own samples; with sharded weights (`ff_fsdp2`) none are
    kept. A readout over goodness leaves a block out until its first window, and callbacks that keep the best
    checkpoint drop the best score when the last block's last window starts, since fewer blocks can score better.

    Args:
        windows: For each block, or segment, its windows `[first epoch, end)`, in order; an empty list for never.
        cache: True: keep outputs of frozen blocks, and raise if that is not exact; None: keep them if it is exact;
            False: compute them again for each batch.
        cache_memory: Limit in MiB; larger outputs are kept in a temporary file.
        epochs: Epochs of the run; after the last window a readout with parameters learns alone. None is the end of the
            last window.

    Raises:
        ValueError: windows overlap or are empty, their number is not that of the segments, blocks of the learner learn
            together, early stopping would end the run in a window of the first blocks, or cache=True is not exact here
            or, in the first batch that needs it, batches lack the samples' index.
        TypeError: an argument is not of the annotated type, or the module is not a learner.

    Example::

        >>> WindowSchedule([[(0, 2)], [(2, 6)], [(4, 6)]]).length
        6
    """

    needs_all_blocks = True

    def __init__(
        self,
        windows: Sequence[Sequence[Window]],
        cache: bool | None = None,
        cache_memory: float = 1024.0,
        epochs: int | None = None,
    ) -> None:
        if cache is not None:
            check_type("cache", cache, bool, "choose True, False, or None to cache where it is exact")
        check_number("cache_memory", cache_memory, "must be 0 or more, in MiB", least=0)
        self.cache = cache
        self.cache_memory = cache_memory
        self.windows = checked_windows(windows)
        if epochs is not None:
            check_int("epochs", epochs, "give the number of epochs of the run, or None")
            if epochs < Windows(self.windows).length:
                raise ValueError(f"epochs={epochs} ends before the last window, at {Windows(self.windows).length}")
        self._epochs = epochs
        self._learner_schedule: Schedule | None = None
        self._schedule: Windows | None = None
        self._described_blocks, self._described_epoch = "", -1

    @property
    def length(self) -> int:
        """Number of epochs of the run."""
        return self._epochs or Windows(self.windows).length

    def plan(self, learner: LocalLearner) -> list[list[Window]]:
        """Windows of every segment of a learner."""
        count = len(learner.segmentation.every)
        if len(self.windows) != count:
            what = "block" if count == len(learner.blocks) else "segment"
            raise ValueError(f"windows has {len(self.windows)} entries for {count} {what}s: give each {what} its list")
        return self.windows

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        learner = _learner(pl_module, self)
        self.windows = self.plan(learner)
        for callback in callbacks_of(trainer):
            if isinstance(callback, EarlyStopping):
                raise ValueError(
                    f"EarlyStopping(monitor={callback.monitor!r}) would end the run in the window of one block, before "
                    "the others have learned: remove it"
                )
        if self.length > Windows(self.windows).length and next(learner.network.readout.parameters(), None) is None:
            raise ValueError(
                f"epochs={self._epochs}: after the last window a readout with parameters learns alone, and "
                f"readout={learner.network.readout} has none: use LinearReadout(), or leave epochs out"
            )
        if self.cache and (reason := cannot_keep(learner) or changes(learner)):
            raise ValueError(f"cache=True is not exact here: {reason}; use cache=None or False")
        self._schedule = Windows(self.windows)
        self._learner_schedule, learner.schedule = learner.schedule, self._schedule
        if self.cache is not False and cannot_keep(learner) is None:
            learner.kept_outputs = KeptOutputs(self._schedule, self.cache_memory)
        self._described_blocks, self._described_epoch = "", -1
        limit, length = trainer.max_epochs, self.length
        if limit is None or limit == -1 or limit > length:
            trainer.fit_loop.max_epochs = length
        elif limit < length:
            rank_zero_info(f"max_epochs={limit} ends the schedule of {length} epochs early")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._update(trainer, pl_module)  # a run resumed in the middle of an epoch does not call on_train_epoch_start
        if (store := _learner(pl_module, self).kept_outputs) is not None:
            store.batches = trainer.num_training_batches

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._update(trainer, pl_module)
        if trainer.current_epoch == max(of_block[-1][0] for of_block in self.windows if of_block):
            _reset_best_score(trainer)

    def _update(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the untrained blocks for the readout, and report the blocks that learn."""
        learner, epoch, schedule = _learner(pl_module, self), trainer.current_epoch, self._schedule
        assert schedule is not None
        segments = learner.segmentation.every
        learner.network.untrained = {block for k in schedule.not_begun(epoch) for block in segments[k].blocks}
        names = ", ".join(segments[k].name for k in schedule.learning(epoch)) or "no block"
        if names != self._described_blocks:
            kept = learner.kept_outputs is not None and changes(learner) is None
            source = "kept outputs of frozen blocks" if kept else "frozen blocks"
            rank_zero_info(f"epoch {epoch}: {names} learns, from {source if schedule.first(epoch) else 'the data'}")
            self._described_blocks = names

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        starts_later = self.cache and self._schedule is not None and self._schedule.first(trainer.current_epoch)
        if starts_later and unpack(batch)[2] is None:
            raise ValueError("cache=True keeps outputs by the samples' index, which these batches lack: give one")
        # not earlier: progress bars set their own text at the start of an epoch
        if self._described_epoch != trainer.current_epoch:
            self._described_epoch = trainer.current_epoch
            _describe(
                trainer.progress_bar_callback,
                f"Epoch {self._described_epoch}/{self.length - 1}, {self._described_blocks}",
            )

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore(pl_module)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore(pl_module)

    def _restore(self, pl_module: LightningModule) -> None:
        """Restore the learner's own schedule, and free kept outputs."""
        if self._learner_schedule is None or not isinstance(pl_module, LocalLearner):
            return
        for segment, windows in zip(pl_module.segmentation.every, self.windows, strict=True):
            for block in (pl_module.blocks[k] for k in segment.blocks):
                block.train(block.training or bool(windows))  # frozen ones ran in eval mode
        if pl_module.kept_outputs is not None:
            pl_module.kept_outputs.close()
        pl_module.schedule, pl_module.kept_outputs = self._learner_schedule, None
        self._learner_schedule = None


class GreedySchedule(WindowSchedule):
    """Block after block: each learns for some epochs while those before it are frozen (arXiv 2305.18353).

    With segments of several blocks, segment after segment.

    Args:
        epochs: Epochs of every block, or a list with those of each; blocks that do not learn get none.
        laps: Number of passes over all blocks; `epochs` are those of one pass.
        cache: See :class:`WindowSchedule`.
        cache_memory: See :class:`WindowSchedule`.

    Raises:
        ValueError: epochs below 1, laps below 1, or see :class:`WindowSchedule`.
        TypeError: an argument is not of the annotated type.
    """

    def __init__(
        self, epochs: int | list[int] = 20, laps: int = 1, cache: bool | None = None, cache_memory: float = 1024.0
    ) -> None:
        check_int("laps", laps)
        if isinstance(epochs, Sequence):
            check_ints("epochs", epochs, "give the epochs of every block, such as [20, 20, 40]")
        else:
            check_int("epochs", epochs)
        per_block = list(epochs) if isinstance(epochs, Sequence) else [epochs]
        if not per_block or min(per_block) < 0 or max(per_block) < 1 or (isinstance(epochs, int) and epochs < 1):
            raise ValueError(f"epochs={epochs}: every block needs at least 1 epoch; in a list, 0 leaves a block out")
        if laps < 1:
            raise ValueError(f"laps={laps}: must be at least 1")
        super().__init__([[(0, 1)]], cache, cache_memory)
        self.epochs = epochs
        self.laps = laps

    @override
    def plan(self, learner: LocalLearner) -> list[list[Window]]:
        blocks = [[learner.blocks[k] for k in segment.blocks] for segment in learner.segmentation.every]
        learns = [any(block.trainable or block.fitted for block in each) for each in blocks]
        each = [self.epochs] * len(learns) if isinstance(self.epochs, int) else list(self.epochs)
        if len(each) != len(learns):
            what = "blocks" if len(learns) == len(learner.blocks) else "segments"
            raise ValueError(f"epochs={each} for {len(learns)} {what}: give one number for each")
        windows: list[list[Window]] = [[] for _ in learns]
        start = 0
        for _ in range(self.laps):
            for k, epochs in enumerate(each):
                if learns[k] and epochs:
                    windows[k].append((start, start + epochs))
                    start += epochs
        return checked_windows(windows)


def _describe(bar: Any, text: str) -> None:
    """Set the description of the progress bar."""
    if isinstance(bar, TQDMProgressBar) and bar.is_enabled:
        bar.train_progress_bar.set_description(text)
    elif isinstance(bar, RichProgressBar) and bar.progress is not None and bar.train_progress_bar_id is not None:
        bar.progress.update(bar.train_progress_bar_id, description=text)


def _reset_best_score(trainer: Trainer) -> None:
    """Set the best scores so far to the worst value, so that later checkpoints replace them."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor is not None and callback.best_k_models:
            worst = torch.tensor(torch.inf if callback.mode == "min" else -torch.inf)
            callback.best_k_models = dict.fromkeys(callback.best_k_models, worst)
            callback.kth_value = callback.best_model_score = worst


def _learner(module: LightningModule, callback: Callback) -> LocalLearner:
    if not isinstance(module, LocalLearner):
        raise TypeError(f"{type(callback).__name__} works on a LocalLearner, not on {type(module).__name__}: remove it")
    if module.segmentation.whole or not module.segmentation.fixed or not module.credit.local:
        given = f"segments={module.segments!r}" if module.credit.local else f"credit={module.credit}"
        what = "one segment of all blocks" if module.segmentation.whole else "no segment on its own"
        raise ValueError(
            f"{type(callback).__name__} with {given}, {what}, so that blocks learn together: remove it, or use "
            "segments='local' and no credit"
        )
    return module


def cannot_keep(learner: LocalLearner) -> str | None:
    """Reason why outputs of frozen blocks cannot be kept in a run; None if they can."""
    readout = learner.network.readout
    if isinstance(learner.trainer.strategy, (FSDPStrategy, ModelParallelStrategy)):
        return "every process has a share of a block's weights, so that none can leave the block out on its own"
    if readout.needs == "features" and learner.network.mode == "class":
        return f"readout={readout} learns from the features of all blocks"
    if readout.needs == "features" and readout.view == "positive":
        return f"readout={readout} learns from the features of all blocks: use view='neutral'"
    return None


def changes(learner: LocalLearner) -> str | None:
    """Reason why the inputs of a sample change from epoch to epoch; None if they do not."""
    if learner.augment is not None:
        return f"augment={learner.augment} changes the images"
    if learner.sampling.version() is None:
        return f"negatives={learner.negatives} are other ones in every epoch, and those of FixedPool stay"
    return None
