"""The only file that uses private names of Lightning; `tests/test_lightning_private.py` fails if one changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.tuner.lr_finder import _LRCallback

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI


def batches_seen(trainer: Trainer) -> int:
    """Training batches before this one, over all epochs: the step axis of every logger (#17958).

    `trainer.global_step` counts optimizer steps, which accumulate over several batches.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The callbacks of a Trainer, in the order in which they run; Lightning declares no type for it."""
    return trainer.callbacks  # type: ignore[attr-defined]


def datamodule_of(trainer: Trainer) -> LightningDataModule | None:
    """The data module of a Trainer, if it has one; Lightning declares no type for it."""
    return trainer.datamodule  # type: ignore[attr-defined]


def given_loader(trainer: Trainer) -> object:
    """The loader that was given to the Trainer in place of a data module; of several validation loaders the first."""
    loops = {"fit": trainer.fit_loop, "validate": trainer.validate_loop, "test": trainer.test_loop}
    loop = loops.get(str(getattr(trainer.state.fn, "value", "")), trainer.predict_loop)
    found = loop._data_source.instance  # type: ignore[attr-defined]
    return found[0] if isinstance(found, (list, tuple)) and found else found


def is_trial(trainer: Trainer) -> bool:
    """Whether `fast_dev_run` of the Trainer is set; Lightning declares no type for it."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def ends_interval(trainer: Trainer, every_n_steps: int | None = None) -> bool:
    """Whether this training batch ends a log interval; None is the Trainer's `log_every_n_steps`."""
    every = trainer.log_every_n_steps if every_n_steps is None else every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (batches_seen(trainer) + 1) % every == 0


def saves_by_time(callback: Callback) -> bool:
    """Whether a callback saves checkpoints by `train_time_interval`."""
    return getattr(callback, "_train_time_interval", None) is not None


def trainer_of(module: LightningModule) -> Trainer | None:
    """The module's Trainer, or None; `module.trainer` would raise."""
    return module._trainer


def state_key(callback: Callback, **arguments: Any) -> str:
    """Key of a callback's state in a checkpoint, different for instances with different arguments."""
    return callback._generate_state_key(**arguments)


def setting(cli: LightningCLI, config: Any, key: str) -> Any:
    """A value of the command line's configuration, with or without a subcommand."""
    return cli._get(config, key)


def parser_of(cli: LightningCLI) -> LightningArgumentParser:
    """The parser of the command line's subcommand."""
    return cli._parser(cli.subcommand)


PARSE_CHECKPOINT = "_parse_ckpt_path"
"""Method of LightningCLI that lets the arguments in a checkpoint replace those on the command line."""


def one_backward(strategy: object) -> bool:
    """Whether a strategy expects the gradients of all parameters from every single backward, as plain DDP does."""
    return type(strategy) is DDPStrategy and not strategy._ddp_kwargs.get("find_unused_parameters", False)


def disable_distributed_sampler(trainer: Trainer) -> None:
    """Give every process all samples, in the order of the loader, instead of a share."""
    trainer._accelerator_connector.use_distributed_sampler = False


def complete_batch(checkpoint: dict[str, Any]) -> bool:
    """Count the batch at whose end a checkpoint was saved as completed; returns whether it was not.

    Lightning counts it after it is saved. Resumed from such a checkpoint, it would skip a validation that is due, and
    the end of an epoch.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    counts = [progress["total"], progress["current"]]
    uncounted = any(each["completed"] < each["processed"] for each in counts)
    for each in counts:
        each["completed"] = each["processed"]
    return uncounted


def begin_at_end_of_batch(trainer: Trainer) -> None:
    """Begin a resumed run with the end of the batch at which it was saved: validation, and the end of the epoch."""
    loop = trainer.fit_loop.epoch_loop
    loop.advance = partial(_skip_once, loop)  # type: ignore[method-assign]


def _skip_once(loop: Any, *arguments: Any) -> None:
    del loop.advance
    loop.restarting = False


def restart_epoch(trainer: Trainer) -> None:
    """Restart the epoch of a run that was resumed in the middle of it."""
    loop = trainer.fit_loop.epoch_loop
    loop.batch_progress.reset_on_run()
    loop.restarting = False
    loop._batches_that_stepped += 1  # a checkpoint at the end of a batch has not counted it yet


def resumes_in_epoch(trainer: Trainer) -> bool:
    """Whether training starts in the middle of an epoch."""
    return bool(trainer.fit_loop.epoch_loop.batch_progress.current.ready)


def epoch_is_over(trainer: Trainer, batches: int) -> bool:
    """Whether a checkpoint is of the end of an epoch; if so, set the epoch's progress to N batches."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    if progress.is_last_batch:
        now: Any = progress.current
        open_ = now.processed - now.completed
        now.ready = now.started = now.processed = batches
        now.completed = batches - open_
    return progress.is_last_batch


class StopRequests:
    """Requests of this process to stop in the middle of an epoch, kept until they are reduced over all processes.

    Lightning broadcasts before every training batch whether the first process got a SIGTERM, and after every batch
    whether `max_time` is over. That would synchronize all processes at every batch.

    Args:
        trainer: The trainer, which no longer stops on such requests by itself.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.requested = [False, False]
        loop = trainer.fit_loop.epoch_loop
        if hasattr(loop, "_broadcast_sigterm_tensor"):
            loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]
        trainer._signal_connector._sigterm_notifier_fn = self._on_sigterm  # type: ignore[method-assign, assignment]
        for callback in callbacks_of(trainer):
            if isinstance(callback, Timer) and callback._interval == "step":
                callback._check_time_remaining = partial(_local_time_check, callback)  # type: ignore[method-assign]

    def _on_sigterm(self, signum: int, frame: Any) -> None:
        launcher = self.trainer.strategy.launcher
        if launcher is not None and not self.requested[1]:
            launcher.kill(signum)
        self.requested[1] = True
        if self.trainer.state.fn != "fit":
            self.trainer._signal_connector.received_sigterm = True

    def call_after_batch(self, function: Callable[[], None]) -> None:
        """Call a function after every training batch, when all hooks have run and before the loop reads the flags."""
        loop = self.trainer.fit_loop.epoch_loop
        loop.on_advance_end = partial(_after_batch, loop, function)  # type: ignore[method-assign]

    def poll(self) -> list[bool]:
        """Whether this process requests to stop, and whether it got a SIGTERM; resets the trainer's flag."""
        finder = any(isinstance(callback, _LRCallback) for callback in callbacks_of(self.trainer))
        if not finder:  # the finder itself reduces over processes whether the loss diverges
            self.requested[0] |= self.trainer.should_stop
            self.trainer.should_stop = False
        return [*self.requested]

    def apply(self, stop: bool, end: bool) -> None:
        """Set the trainer's flags to the requests of all processes."""
        self.requested = [False, self.requested[1] and not end]  # a SIGTERM may have arrived since `poll`
        self.trainer.should_stop |= stop
        self.trainer._signal_connector.received_sigterm |= end


def _after_batch(loop: Any, function: Callable[[], None], *arguments: Any) -> None:
    function()
    type(loop).on_advance_end(loop, *arguments)


def _nothing() -> None:
    """Replaces a broadcast to the other processes."""


def _local_time_check(timer: Timer, trainer: Trainer) -> None:
    remaining = timer.time_remaining()
    if remaining is not None and remaining <= 0:
        trainer.should_stop = True
