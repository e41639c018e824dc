"""LocalLearner: Lightning's hooks, each delegated to one of the learner's parts.

Shapes: N samples, P positives, M negatives, C classes, K blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import Self, override

from lightning_ff.batch import unpack, unpack_image
from lightning_ff.blocks.local_block import LocalBlock
from lightning_ff.credit import Credit
from lightning_ff.labels import LabelEncoding
from lightning_ff.learner import checks, loading, schedulers
from lightning_ff.learner.attached import Attached
from lightning_ff.learner.evaluator import Evaluator, predict
from lightning_ff.learner.hparams import remember, remember_instead
from lightning_ff.learner.resume import ResumeState
from lightning_ff.learner.sampling import Sampling
from lightning_ff.learner.strategy import blockwise, hold_reductions, mean_values
from lightning_ff.learner.train_log import TrainLog, logged, step_outputs
from lightning_ff.negatives import NegativeContext, NegativeSampler, default_sampler, pairs
from lightning_ff.network import LocalNetwork
from lightning_ff.optim import BlockOptimizers, default_rate, make_optimizers
from lightning_ff.readouts import Readout
from lightning_ff.spec import factory, part
from lightning_ff.sweep import KeptOutputs, Schedule, Segmentation, Segments, Start, Sweep, SweepResult
from lightning_ff.sweep.finite import check_losses
from lightning_ff.sweep.modes import check_modes
from lightning_ff.target import Labels, Pairs, Target

_PLAIN = (str, int, bool, float, type(None))
_SAMPLES = 32  # of all processes together, for the training accuracy


class LocalLearner(LightningModule):
    """Trains a :class:`~lightning_ff.network.LocalNetwork` block by block, each block from its own loss.

    Args:
        network: The blocks and how they predict.
        segments: What is differentiated: consecutive blocks with one loss and one backward. "local": every block its
            own. A number of segments of nearly equal length, or a list of their lengths, such as [5, 5, 4]: the loss of
            each is that of its last block, with the terms of all; each has one optimizer, named "block00-04".
            "overlapping": pairs of blocks, (0, 1), (2, 3), ... in even batches and (1, 2), ... in odd ones; a block
            left over is alone. The others make the whole network one segment, as controls: "sum_of_losses" (deep
            supervision), "loss_of_sum" (one loss on the summed goodness), "last" (the last block's loss: backprop).
        backward: "per_block" frees each segment's graph before the next is built; "summed" runs one backward on the
            sum of the losses: equal weights, more memory.
        step: "batch" steps every optimizer after the sweep; "block" steps each right after its backward and frees its
            gradients: least memory. Equal weights.
        refresh_output: Run a block again after its step, so that the next one gets the output of the new weights: one
            more forward pass. Needs step="block" and segments="local"; it does not update running statistics.
        optimizer: Factory of one optimizer per block, called with the block's parameters.
        scheduler: Factory of one learning-rate scheduler per optimizer.
        scheduler_interval: When schedulers step: after every "epoch" or every optimizer "step".
        scheduler_monitor: Metric of a `ReduceLROnPlateau` scheduler, which steps after validation. None is "val/loss".
        lr_decay: The learning rate of block k is multiplied by `lr_decay**k`: below 1, deeper blocks learn slower.
        block_optimizers: Other optimizer factories by name of the block ("block00", "readout"); wildcards are allowed.
        gradient_clip_val: Bound on the gradients of each block.
        gradient_clip_algorithm: The bound is on their "norm" or on each "value".
        accumulate_grad_batches: Batches per optimizer step; gradients are averaged.
        negatives: Negative sampler (pair mode); None chooses wrong labels, or hybrid images where no label is written.
        augment: Module applied to training images as a whole batch, on the device.
        credit: Where a segment's gradients come from, such as `ActivationRelaxation()`; None is autograd within it.

    Raises:
        ValueError: an argument does not fit; the message names it.
        TypeError: an argument is not of the annotated type.
    """

    def __init__(
        self,
        network: LocalNetwork,
        segments: Segments = "local",
        backward: Literal["per_block", "summed"] = "per_block",
        step: Literal["batch", "block"] = "batch",
        refresh_output: bool = False,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = Adam,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        scheduler_monitor: str | None = None,
        lr_decay: float = 1.0,
        block_optimizers: dict[str, Callable[[Iterable[nn.Parameter]], Optimizer]] | None = None,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        accumulate_grad_batches: int = 1,
        negatives: NegativeSampler | None = None,
        augment: nn.Module | None = None,
        credit: Credit | None = None,
    ) -> None:
        super().__init__()
        checks.check_subclass(type(self))
        self._chosen = remember(self, ignore=["network", "blocks"])
        checks.check_choices(scheduler_interval, gradient_clip_algorithm)
        negatives, augment, credit = part(negatives), part(augment), Credit() if credit is None else part(credit)
        checks.check_parts(network, negatives, augment, block_optimizers, credit)
        check_modes(segments, backward, step, refresh_output)
        checks.check_numbers(lr_decay, gradient_clip_val, accumulate_grad_batches)
        self.automatic_optimization = False
        self.network = network
        self.segments: Segments = segments
        self.segmentation = Segmentation(network, segments, not credit.local)
        self.backward_mode: Literal["per_block", "summed"] = backward
        self.step_mode: Literal["batch", "block"] = step
        self.refresh_output = refresh_output
        self.optimizer = factory(optimizer)
        self.scheduler = factory(scheduler)
        self.scheduler_interval: Literal["epoch", "step"] = scheduler_interval
        self.scheduler_monitor = scheduler_monitor
        self.lr_decay = lr_decay
        self.block_optimizers = {name: factory(made) for name, made in (block_optimizers or {}).items()}
        self.gradient_clip_val = gradient_clip_val
        self.gradient_clip_algorithm: Literal["norm", "value"] = gradient_clip_algorithm
        self.accumulate_grad_batches = accumulate_grad_batches
        self.augment = augment
        self.credit = credit
        checks.check_factories(
            self.optimizer, self.block_optimizers, self.scheduler, scheduler_interval, scheduler_monitor
        )
        self.sampling = Sampling(default_sampler(network) if negatives is None else negatives)
        self.schedule = Schedule()
        self.kept_outputs: KeptOutputs | None = None
        self.held_out: tuple[int, ...] = ()
        self.batch_number = 0
        self.new_lr: float | None = None
        self.example_input_array = torch.zeros(1, *network.input_shape)
        self.evaluator = Evaluator(network.num_classes, network.scored)
        self.train_log = TrainLog()
        self.resume_state = ResumeState()
        self._updates = True  # whether this batch ends with a step
        self._attached = Attached(self)

    # For users and callbacks

    @property
    def blocks(self) -> list[LocalBlock]:
        """The blocks, in order."""
        return self.network.stack

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.network.num_classes

    @property
    def labels(self) -> LabelEncoding:
        """The label encoding (pair mode)."""
        assert self.network.labels is not None
        return self.network.labels

    @property
    def lr(self) -> float:
        """Learning rate of `optimizer`; a new value is used from the next `fit` on, such as by `Tuner.lr_find`."""
        return default_rate(self.optimizer) if self.new_lr is None else self.new_lr

    @lr.setter
    def lr(self, rate: float) -> None:
        self.new_lr = rate

    @property
    def negatives(self) -> NegativeSampler | None:
        """The negative sampler in use; an assigned one becomes the learner's own."""
        return self.sampling.current

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        if name == "negatives":  # torch would register it as a submodule
            self.sampling.replace(value)
        elif type(value) in _PLAIN and name in self.__dict__:
            # Lightning sets about 50 such values per batch; torch takes 5 times as long for each
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)
            if name == "trainer" and value is not None:
                self._on_trainer(value)

    def install_negatives(self, sampler: NegativeSampler) -> None:
        """Use a callback's sampler, whose state the callback saves; the next fit starts with the learner's own."""
        self.sampling.install(sampler, self.network, self.device)

    def exchange_readout(self, readout: Readout) -> None:
        """Replace the readout, after training too; one with parameters starts untrained."""
        self.network.exchange_readout(readout)
        remember_instead(self, "readout", readout, self._chosen)
        self.renew_metrics()

    def renew_metrics(self) -> None:
        """Create new metrics, for another readout or other classes."""
        self.evaluator = Evaluator(self.num_classes, self.network.scored).to(self.device)

    def deploy(self) -> nn.Module:
        """A plain module of the trained blocks, normalisation and readout, for torch.export, ONNX or a custom loop."""
        return self.network.deploy()

    def evaluating(self) -> AbstractContextManager[None]:
        """Context manager: eval mode for the network; restores the mode of every module."""
        return self.network.evaluating()

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(N, C)` of inputs `(N, *input_shape)`, in eval mode."""
        with self.evaluating():
            return self.network(x)

    @torch.no_grad()
    def features(self, x: Tensor) -> list[Tensor]:
        """Activation of every block `(N, ...)`, for inputs `(N, *input_shape)` with the neutral label."""
        with self.evaluating():
            return self.network.features(x)

    @torch.no_grad()
    def block_scores(self, x: Tensor) -> list[Tensor]:
        """Class scores `(N, C)` of each block on its own."""
        with self.evaluating():
            return self.network.block_scores(x)

    @override
    def configure_optimizers(self) -> Any:
        self.local_optimizers: BlockOptimizers = make_optimizers(
            self.segmentation.owners(self.network), self.optimizer, self.block_optimizers, self.new_lr, self.lr_decay
        )
        self._attached.clip_before_steps(self.local_optimizers)
        self.sweep = Sweep(
            self.network,
            self.local_optimizers,
            self.segments,
            self.schedule,
            self.kept_outputs,
            backward_fn=self._backward,
            step_fn=self._step,
            backward=self.backward_mode,
            step=self.step_mode,
            refresh_output=self.refresh_output,
            credit=self.credit,
        )
        if self.scheduler is None:
            return {"optimizer": self.local_optimizers}
        options = self.scheduler_interval, self.scheduler_monitor, self.trainer.enable_validation
        made = schedulers.make_schedulers(self.local_optimizers, self.scheduler, *options)
        return {"optimizer": self.local_optimizers, "lr_scheduler": {"scheduler": made, "interval": options[0]}}

    @override
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        image, label, index = unpack(batch)
        self.batch_number = batch_idx
        checks.check_labels(label, self.num_classes, batch_idx)
        self._updates = (batch_idx + 1) % self.accumulate_grad_batches == 0 or self.trainer.is_last_batch
        self.sweep.epoch, self.sweep.batch = self.current_epoch, batch_idx
        self.sweep.version = None if self.augment is not None else self.sampling.version()
        with hold_reductions(self.trainer.strategy, not self._updates), checks.one_sample_named():
            start = self.sweep.start(label, index, image)
            if start is None:
                image = image if self.augment is None else checks.check_augmented(self.augment(image), image)
                start = Start(*self.inputs(image, label, index))
            x, target, block, features = start
            result = self.sweep(x, target, image, label, index, block, features, self._updates)
        if self._updates and self.step_mode == "block":  # blocks have already stepped: only count the step
            cast(LightningOptimizer, self.optimizers()).step(names=[])
        self._attached.end_batch(self.trainer)
        self._log_training(result, image, label)
        return step_outputs(result, target)

    def inputs(self, image: Tensor, label: Tensor, index: Tensor | None) -> tuple[Tensor, Target]:
        """Input of the first block, and the target: positives stacked on negatives, or the images and labels."""
        self.network.check_input(image)
        if self.negatives is None:
            return self.network.normalize(image), Labels(label)
        with torch.no_grad():
            positive, negative = pairs(self.negatives, image, label, index, self.sampler_context)
            return self.network.normalize(torch.cat((positive, negative))), Pairs(len(positive))

    @property
    def sampler_context(self) -> NegativeContext:
        """State of the run for a negative sampler."""
        return NegativeContext(self.network, self.current_epoch, self.batch_number, self.global_rank, self.held_out)

    def _backward(self, loss: Tensor, names: list[str]) -> None:
        """Run backward through the strategy, which then reduces the gradients of these optimizers."""
        share, strategy = self.accumulate_grad_batches, self.trainer.strategy
        optimizer = self.local_optimizers.by_block[names[0]] if len(names) == 1 else self.local_optimizers
        strategy.backward(loss / share if share > 1 else loss, optimizer)
        if self._updates:
            blockwise(strategy).reduce_gradients(names)

    def _step(self, names: list[str]) -> None:
        """Step optimizers through the strategy; those of a whole batch count as one step of the Trainer."""
        if self.step_mode == "batch":
            cast(LightningOptimizer, self.optimizers()).step(names=names)
            return
        for name in names:
            self.trainer.strategy.optimizer_step(self.local_optimizers.by_block[name], _empty_closure)

    @torch.no_grad()
    def _log_training(self, result: SweepResult, image: Tensor, label: Tensor) -> None:
        """Add the losses of a batch; when it is due, log their means and the accuracy on a few samples."""
        self.train_log.add(result.losses)
        if not self.train_log.is_due(self.trainer):
            return
        strategy = blockwise(self.trainer.strategy)
        n = max(1, _SAMPLES // strategy.replicas)
        accuracy = (self(image[:n]).argmax(1) == label[:n]).float().mean()
        values = {**strategy.gather_values(self.train_log.means()), "acc": float(accuracy)}
        means = values if strategy.replicas == 1 else mean_values(self.trainer.strategy, values, self.device)
        check_losses(means, image)
        for name, value in logged(means).items():
            self.log(name, value, prog_bar=name in ("train/loss", "train/acc"))
        self.log_dict({f"relaxation/{name}": value for name, value in self.credit.values().items()})

    @override
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self._evaluate("val", batch, batch_idx, dataloader_idx)

    @override
    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self._evaluate("test", batch, batch_idx, dataloader_idx)

    def _evaluate(self, stage: str, batch: Any, batch_idx: int, dataloader_idx: int) -> Tensor:
        checks.check_one_loader(stage, dataloader_idx)
        image, label, _ = unpack(batch)
        checks.check_labels(label, self.num_classes, batch_idx)
        self.network.check_input(image)
        blockwise(self.trainer.strategy).compare_labels(label)
        outputs = self.network.stage.gather_outputs(self.network.outputs(image))
        loss = self.evaluator.update(stage, self.network, outputs, label)
        if outputs is not None and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.network.readout.observe(outputs, label)
        samples = 0 if outputs is None else len(label)
        for name, metric in self.evaluator.metrics(stage).items():
            bar = name == f"{stage}/acc"
            self.log(name, metric, on_step=False, on_epoch=True, prog_bar=bar, batch_size=samples)
        return loss

    @override
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Labels `(N,)`, scores `(N, C)` and goodness of a batch, see `lightning_ff.learner.evaluator.predict`."""
        image, index = unpack_image(batch)
        self.network.check_input(image)
        prediction: dict[str, Tensor] = self.network.stage.broadcast(predict(self.network, image))
        return prediction if index is None else {"index": index, **prediction}

    # Trainer and checkpoints; see also `Attached`

    def _on_trainer(self, trainer: Trainer) -> None:
        """Attach the learner to a Trainer that runs it."""
        self._attached.attach(trainer)
        if trainer.state.fn == "fit":
            if self.negatives is not self.sampling.own:  # set by a callback in an earlier fit
                self.sampling.reset()
            checks.check_trainer(trainer, self.backward_mode, self.step_mode, len(self.segmentation.every))

    @override
    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self._attached.clip(optimizer)

    @override
    def on_validation_epoch_end(self) -> None:
        self._attached.end_validation(self.trainer)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._attached.save(self, checkpoint)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._attached.load(self, checkpoint)

    @override
    def on_validation_model_zero_grad(self) -> None:
        """No-op: accumulated gradients are kept during a validation."""

    @classmethod
    @override
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, trusted: Sequence[str] = (), **kwargs: Any) -> Self:
        """Load weights and arguments; a network given as an object has to be given again (`network=...`).

        Of a file only classes of parts in this package, torch, torchvision and imported modules are built, else an
        `UntrustedCheckpoint` is raised. `trusted` names others, and functions; `weights_only=False` trusts all of it.
        """
        kwargs = loading.prepare(cls, checkpoint_path, args, kwargs, trusted)
        try:
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        except TypeError:  # of a missing argument; checkpoints of the command line hold the network's description
            checks.check_given_again(cls, kwargs)
            raise


def _empty_closure() -> None:
    """Closure of a step whose gradients are already computed."""
