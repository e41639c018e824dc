"""Callback with what a learner does around its training steps.

A subclass of the learner may override a hook of `LightningModule` without `super()`; the hooks of a callback still run.
The learner adds the callback to its Trainer when it is attached to one.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelSummary
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_ff._lightning import (
    begin_at_end_of_batch,
    callbacks_of,
    complete_batch,
    datamodule_of,
    given_loader,
    resumes_in_epoch,
    trainer_of,
)
from lightning_ff.learner import checks, schedulers
from lightning_ff.learner.resume import ResumeState, WholeFileIO, sums
from lightning_ff.learner.sampling import Sampling
from lightning_ff.learner.strategy import blockwise, sum_over_replicas
from lightning_ff.learner.summary import BlockSummary
from lightning_ff.learner.train_log import TrainLog
from lightning_ff.negatives import NegativeSampler, load_state
from lightning_ff.network import LocalNetwork
from lightning_ff.optim import BlockOptimizers
from lightning_ff.sweep import Sweep
from lightning_ff.sweep.finite import NonFiniteLoss, check_state, open_buffers


class Parts(Protocol):
    """The parts and arguments of a learner that are used here."""

    network: LocalNetwork
    local_optimizers: BlockOptimizers
    sweep: Sweep
    sampling: Sampling
    train_log: TrainLog
    resume_state: ResumeState
    held_out: tuple[int, ...]
    scheduler_interval: Literal["epoch", "step"]
    scheduler_monitor: str | None
    gradient_clip_val: float | None
    gradient_clip_algorithm: Literal["norm", "value"]
    accumulate_grad_batches: int
    _chosen: set[str]
    _updates: bool

    @property
    def negatives(self) -> NegativeSampler | None: ...


class Attached(Callback):
    """Set-up, gradient clipping, schedulers, fitted readouts and checkpoint state of a learner.

    Args:
        learner: The learner; with another module the callback does nothing.
    """

    def __init__(self, learner: Parts) -> None:
        self.learner = learner
        self.own_settings = False  # whether settings of this run, not those of a checkpoint, count in a resume
        self._clipped: set[str] = set()  # optimizers whose gradients are clipped already for the next step
        self._validated = False
        self._optimizers_train: bool | None = None  # the mode of the optimizers
        self._open: set[str] = set()  # buffers that need not be finite
        self._predicted: torch.Tensor | None = None  # whether all scores so far are finite
        self._in_batch = False  # resumed from a checkpoint that was saved at the end of a batch

    def _is_learner(self, module: object) -> bool:
        return module is self.learner

    def attach(self, trainer: Trainer) -> None:
        """Add this callback to a Trainer, a model summary of blocks, and checkpoint I/O that checks files."""
        callbacks = [each for each in callbacks_of(trainer) if not isinstance(each, Attached)]
        others = [each for each in callbacks if not isinstance(each, Checkpoint)]
        # before those that save: they save what it has changed
        callbacks_of(trainer)[:] = [*others, self, *(each for each in callbacks if isinstance(each, Checkpoint))]
        callbacks = callbacks_of(trainer)
        for i, callback in enumerate(callbacks):
            if isinstance(callback, ModelSummary) and not isinstance(callback, BlockSummary):
                callbacks[i] = BlockSummary()
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFileIO()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the arguments against the data; set the held-out classes, and an open on-value, from it."""
        if not self._is_learner(pl_module):
            return
        network = self.learner.network
        module = datamodule_of(trainer)
        data = given_loader(trainer) if module is None else module
        self._open = open_buffers(network.owners, nan=stage == "fit")
        checks.check_negatives(self.learner.negatives, network)
        self.learner.held_out = checks.held_out(data, network.num_classes)
        if network.labels is not None and not bool(network.labels.known):
            maximum = getattr(data, "input_max", None)
            if maximum is None:
                rank_zero_info("labels are written with 1.0: the data module has no input_max, and on_value=None")
            network.labels.fix(1.0 if maximum is None else float(maximum))

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_learner(pl_module):
            return
        self.learner.train_log.clear()
        self.learner.local_optimizers.own_settings = self.own_settings
        self._optimizers_train = None
        if not trainer.ckpt_path:
            self._in_batch = False
            self.learner.resume_state.clear()
            self.learner.network.untrained = set()
        self._install(pl_module.device)

    def _install(self, device: torch.device) -> None:
        """Move the sampler in use to the device, and report it."""
        if (sampler := self.learner.negatives) is not None:
            self.learner.sampling.install(sampler, self.learner.network, device)
            rank_zero_info(f"negatives: {sampler}")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_learner(pl_module):
            return
        if self.learner.negatives is not self.learner.sampling.installed:  # set in a hook after on_fit_start
            self._install(pl_module.device)
        sweep = self.learner.sweep
        sweep.epoch = trainer.current_epoch
        checks.check_scaling(trainer, sweep.credit, self.learner.local_optimizers)
        schedulers.set_length(trainer, sweep, self.learner.accumulate_grad_batches, self.learner.scheduler_interval)
        checks.check_readout(self.learner.network.readout, trainer)
        in_epoch = resumes_in_epoch(trainer)
        if in_epoch and self._in_batch:
            begin_at_end_of_batch(trainer)
        self._in_batch = False
        self.learner.resume_state.restore(pl_module, in_epoch)
        if not in_epoch or (blockwise(trainer.strategy).replicas > 1 and trainer.global_rank):
            for total in sums(self.learner.network).values():  # that of a checkpoint is the first process's
                total.zero_()

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self._is_learner(pl_module):
            return
        self._set_mode(True)
        if batch_idx == 0:
            checks.check_thawed(self.learner.network, self.learner.local_optimizers)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_learner(pl_module):
            self._set_mode(False)

    def _set_mode(self, trains: bool) -> None:
        """Set the mode of the optimizers, once."""
        if self._optimizers_train != trains:
            self.learner.local_optimizers.train(trains)
            self._optimizers_train = trains

    def end_batch(self, trainer: Trainer) -> None:
        """Step the schedulers after a training batch; after the last one of an epoch, first fit the fitted parts."""
        sweep = self.learner.sweep
        if trainer.is_last_batch:
            sweep.fit_parts(partial(sum_over_replicas, trainer.strategy))
        schedulers.step_after_batch(trainer, sweep, self.learner._updates)

    def clip(self, optimizer: Optimizer) -> None:
        """Clip the gradients of each block that steps; called by the module's hook, after those of callbacks."""
        if self.learner.gradient_clip_val is None:
            return
        name = self.learner.local_optimizers.name_of(optimizer)
        for block in self.learner.local_optimizers.by_block if name is None else [name]:
            if self._clip_block(block):
                self._clipped.add(block)

    def clip_before_steps(self, optimizers: BlockOptimizers) -> None:
        """Clip right before each step too, unless the module's hook has done it: a subclass may override that."""
        if self.learner.gradient_clip_val is not None:
            for name, optimizer in optimizers.by_block.items():
                optimizer.register_step_pre_hook(partial(self._clip_before_step, name))

    def _clip_before_step(self, name: str, *arguments: Any) -> None:
        if name not in self._clipped:
            self._clip_block(name)
        self._clipped.discard(name)

    def _clip_block(self, name: str) -> bool:
        """Clip the gradients of a block; returns whether it has any."""
        bound = self.learner.gradient_clip_val
        parameters = [p for p in self.learner.local_optimizers.parameters(name) if p.grad is not None]
        if not parameters or bound is None:
            return False
        if self.learner.gradient_clip_algorithm == "norm":
            torch.nn.utils.clip_grad_norm_(parameters, bound)
        else:
            torch.nn.utils.clip_grad_value_(parameters, bound)
        return True

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = False
        if trainer.state.fn == "fit" and self._is_learner(pl_module):
            self._set_mode(False)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_learner(pl_module) and not self._validated:
            self.end_validation(trainer)

    def end_validation(self, trainer: Trainer) -> None:
        """Fit the readout, and step the schedulers that monitor a metric; called by the module's hook, or after it."""
        self._validated = True
        self._check_evaluation(trainer)
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.learner.network.readout.fit(lambda counts: trainer.strategy.reduce(counts, reduce_op="sum"))
        names = schedulers.learning(self.learner.sweep)
        schedulers.step_on_plateau(trainer, self.learner.scheduler_monitor, trainer.callback_metrics, names)

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_learner(pl_module):
            self._check_evaluation(trainer)

    @override
    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        if self._is_learner(pl_module) and isinstance(outputs, dict) and "scores" in outputs:
            finite = outputs["scores"].isfinite().all()
            self._predicted = finite if self._predicted is None else self._predicted & finite

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._predicted is not None and not bool(self._predicted):
            rank_zero_warn(
                "some predicted scores are NaN or infinite: check the images, and the weights, for such values"
            )
        self._predicted = None

    def _check_evaluation(self, trainer: Trainer) -> None:
        """Raise if the loss of an evaluation is not finite."""
        name = "test/loss" if trainer.state.fn == "test" else "val/loss"
        loss = trainer.callback_metrics.get(name)
        if loss is not None and not bool(torch.as_tensor(loss).isfinite()):
            self._check_state()
            raise NonFiniteLoss(
                f"{name} is {float(loss)}, and the weights are finite: check the images for such values"
            )

    def _check_state(self) -> None:
        """Raise if a loss, weight, buffer or optimizer state is not finite."""
        learner = self.learner
        learner.train_log.check()
        check_state(learner.network.owners, getattr(learner, "local_optimizers", None), self._open)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_learner(pl_module):
            self.learner.train_log.check()

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._is_learner(pl_module):
            self.save(pl_module, checkpoint)

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._is_learner(pl_module):
            self.load(pl_module, checkpoint)

    def save(self, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the learner's state to a checkpoint, once; raises if anything in it is not finite."""
        if "rng" in checkpoint:
            return
        learner = self.learner
        self._check_state()
        for name in learner._chosen:  # a subclass that sets an argument itself does not take it when it is loaded
            checkpoint.get(module.CHECKPOINT_HYPER_PARAMS_KEY, {}).pop(name, None)
        if learner.sampling.own is not None and (state := learner.sampling.own.state_dict()):
            checkpoint["negatives"] = state
        if learner.network.untrained:
            checkpoint["waiting"] = sorted(learner.network.untrained)
        checkpoint["state_dict"].update(
            {key: sum_over_replicas(module.trainer.strategy, total) for key, total in sums(learner.network).items()}
        )
        accumulates = not learner._updates and module.trainer.world_size == 1
        learner.resume_state.save(checkpoint, module, module.device, accumulates)

    def load(self, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load the state that `save` added; random state and gradients only if a run is resumed."""
        learner, trainer = self.learner, trainer_of(module)
        resumes = trainer is not None and trainer.state.fn == "fit"
        checks.check_weights_fit(module, checkpoint)
        if resumes:
            checks.check_complete(checkpoint)
        learner.network.untrained = set(checkpoint.get("waiting", ()))
        if learner.sampling.own is not None and "negatives" in checkpoint:
            load_state(learner.sampling.own, checkpoint["negatives"], strict=resumes)
        if resumes:
            self._in_batch |= complete_batch(checkpoint)
            learner.resume_state.load(checkpoint)
