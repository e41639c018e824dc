"""Checks of a learner's arguments, data and Trainer: every message names argument, value and remedy."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_ff._lightning import callbacks_of, one_backward, saves_by_time
from lightning_ff.credit import Credit
from lightning_ff.labels import Unlabelled
from lightning_ff.negatives import NegativeSampler, check_sampler
from lightning_ff.network import LocalNetwork
from lightning_ff.optim import BlockOptimizers
from lightning_ff.readouts import Readout
from lightning_ff.sweep.modes import check_choice
from lightning_ff.validate import check_int, check_number, check_type

Interval = Literal["epoch", "step"]
Clipping = Literal["norm", "value"]


def check_choices(scheduler_interval: str, gradient_clip_algorithm: str) -> None:
    """Check arguments with a fixed set of choices."""
    check_choice("scheduler_interval", scheduler_interval, Interval)
    check_choice("gradient_clip_algorithm", gradient_clip_algorithm, Clipping)


def check_subclass(learner: type[LightningModule]) -> None:
    """Check that a subclass does not override what is no method any more, and would not be called.

    Raises:
        TypeError: it does.
    """
    if hasattr(learner, "sweep"):
        raise TypeError(
            f"{learner.__name__} overrides sweep(), which a training step no longer calls: the learner builds a "
            "lightning_ff.Sweep in configure_optimizers; override training_step, inputs or configure_optimizers"
        )


def check_parts(network: Any, negatives: Any, augment: Any, block_optimizers: Any, credit: Any) -> None:
    """Check that a learner's parts have the annotated types."""
    check_type(
        "network", network, LocalNetwork, "wrap the blocks, LocalNetwork(blocks, input_shape, num_classes, readout)"
    )
    if negatives is not None:
        check_type("negatives", negatives, NegativeSampler, "give an instance, such as WrongLabel()")
    if augment is not None:
        check_type("augment", augment, torch.nn.Module, "give a module, such as RandomShift(1)")
    check_type("credit", credit, Credit, "give an instance, such as ActivationRelaxation(), or None")
    if block_optimizers is not None:
        remedy = "give factories by name of the block, such as {'block00': torch.optim.SGD}"
        check_type("block_optimizers", block_optimizers, Mapping, remedy)
        for name in block_optimizers:
            check_type("a name in block_optimizers", name, str, remedy)


def check_numbers(lr_decay: Any, gradient_clip_val: Any, accumulate_grad_batches: Any) -> None:
    """Check the numeric arguments of a step."""
    check_number("lr_decay", lr_decay, "must be above 0; 1 leaves all rates as they are", above=0)
    if gradient_clip_val is not None:
        check_number("gradient_clip_val", gradient_clip_val, "must be above 0, or None for no clipping", above=0)
    check_int("accumulate_grad_batches", accumulate_grad_batches)
    if accumulate_grad_batches < 1:
        raise ValueError(f"accumulate_grad_batches={accumulate_grad_batches}: must be at least 1")


def check_factories(
    optimizer: Any, block_optimizers: Mapping[str, Any], scheduler: Any, interval: str, monitor: str | None
) -> None:
    """Check that optimizers and schedulers are given as factories."""
    given = {f"block_optimizers[{name!r}]": made for name, made in block_optimizers.items()}
    for name, made in {"optimizer": optimizer, **given}.items():
        if not callable(made):
            raise TypeError(f"{name}={made!r}: give a factory, such as functools.partial(torch.optim.Adam, lr=0.001)")
    if scheduler is not None:
        if not callable(scheduler):
            raise TypeError(f"scheduler={scheduler!r}: give a factory, such as lightning_ff.CosineToEnd")
        return
    if monitor is not None:
        raise ValueError(_without_scheduler("scheduler_monitor", monitor))
    if interval != "epoch":
        raise ValueError(_without_scheduler("scheduler_interval", interval))


def _without_scheduler(name: str, value: str) -> str:
    return f"{name}={value!r} with scheduler=None acts on nothing: give a scheduler, or leave it out"


def check_negatives(negatives: NegativeSampler | None, network: LocalNetwork) -> None:
    """Check at `setup()` that the sampler fits the mode, and the readout the label encoding."""
    if network.mode == "class":
        if negatives is not None:
            raise ValueError(f"negatives={negatives}: class mode has no negatives, leave the argument out")
        return
    if negatives is None:
        remedy = "WrongLabel()"
        if isinstance(network.labels, Unlabelled):
            remedy = f"HybridImages() for images (C, H, W), which input_shape={network.input_shape} is not"
        raise ValueError(f"negatives=None: pair mode needs a sampler, such as {remedy}")
    check_sampler(negatives, network)
    if isinstance(network.labels, Unlabelled) and network.readout.needs == "scores":
        raise ValueError(
            f"readout={network.readout} scans candidate labels, and labels=Unlabelled writes none: use LinearReadout"
        )


def held_out(data: object, num_classes: int) -> tuple[int, ...]:
    """Classes that a data module keeps out of training, so that no negative is labelled with one."""
    classes = tuple(getattr(data, "held_out_classes", ()))
    if num_classes - len(classes) < 2:
        raise ValueError(f"held_out={list(classes)} leaves fewer than 2 of {num_classes} classes to train on")
    return classes


def check_trainer(trainer: Trainer, backward: str, step: str, segments: int) -> None:
    """Check Trainer flags that Lightning rejects later without naming a remedy."""
    if trainer.gradient_clip_val:
        raise ValueError(
            f"Trainer(gradient_clip_val={trainer.gradient_clip_val}) does not act on several optimizers: remove it and "
            f"give the learner gradient_clip_val={trainer.gradient_clip_val}, which clips each block"
        )
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"Trainer(accumulate_grad_batches={trainer.accumulate_grad_batches}) does not act here: remove it and give "
            f"the learner accumulate_grad_batches={trainer.accumulate_grad_batches}"
        )
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks_of(trainer)):
        raise ValueError(
            "StochasticWeightAveraging replaces the scheduler and the backward of automatic optimisation, which this "
            "learner does not use: remove it, or use lightning.pytorch.callbacks.EMAWeightAveraging (Lightning 2.6)"
        )
    if any(saves_by_time(callback) for callback in callbacks_of(trainer)):
        raise ValueError(
            "ModelCheckpoint(train_time_interval=...) saves nothing under manual optimisation, as Lightning is: use "
            "every_n_train_steps or every_n_epochs"
        )
    if one_backward(trainer.strategy) and backward == "per_block" and segments > 1:
        raise ValueError(
            "strategy='ddp' expects all gradients from one backward, and backward='per_block' runs one per block: use "
            "strategy='ff_ddp', which reduces each block's after its backward, or give the learner backward='summed'"
        )
    if trainer.precision == "16-mixed" and step == "block":
        raise ValueError(
            "step='block' with precision='16-mixed' would update the loss scale once per block: use step='batch' or "
            "precision='bf16-mixed'"
        )


def check_thawed(network: LocalNetwork, optimizers: BlockOptimizers) -> None:
    """Check that every weight that requires gradients is one that an optimizer steps."""
    stepped = {id(p) for name in optimizers.by_block for p in optimizers.parameters(name)}
    thawed = [name for name, p in network.named_parameters() if p.requires_grad and id(p) not in stepped]
    if thawed:
        raise ValueError(
            f"{thawed[0]} requires gradients since training began, and no optimizer steps it: let it require them "
            "before fit, and freeze it for some epochs by requires_grad_(False) in a callback, or use a GreedySchedule"
        )


def check_scaling(trainer: Trainer, credit: Credit, optimizers: BlockOptimizers) -> None:
    """Check that a loss scale is used on losses alone, and by an optimizer."""
    if trainer.precision != "16-mixed" or (credit.local and optimizers.by_block):
        return
    what = "no block learns by gradients, so nothing is scaled" if credit.local else f"the signals of {credit} are not"
    raise ValueError(f"precision='16-mixed' scales losses, and {what}: use precision='bf16-mixed'")


def check_given_again(learner: type[LightningModule], given: dict[str, Any]) -> None:
    """Check that a network given as an object is given again, since a checkpoint holds only its weights."""
    network = inspect.signature(learner).parameters.get("network")
    if network is not None and network.default is network.empty and "network" not in given:
        raise ValueError(
            f"{learner.__name__} got network=... as an object, of which a checkpoint holds only the weights: give it "
            "again, load_from_checkpoint(path, network=...)"
        )


def check_weights_fit(learner: LightningModule, checkpoint: Mapping[str, Any]) -> None:
    """Check that the weights in a checkpoint are those of this network, by name and shape."""
    saved, own = checkpoint.get("state_dict"), learner.state_dict()
    if saved is None or not learner.strict_loading:  # FSDP loads the weights by itself
        return
    sized = {name for name in own.keys() & saved.keys() if own[name].numel() and saved[name].numel()}  # not sums
    wrong = [name for name in own if name in sized and saved[name].shape != own[name].shape]
    lacking, more = own.keys() - saved.keys(), saved.keys() - own.keys()
    if not (wrong or lacking or more):
        return
    if wrong:
        first = f"{wrong[0]} is {tuple(saved[wrong[0]].shape)} there, and {tuple(own[wrong[0]].shape)} here"
    else:
        first = f"it lacks {sorted(lacking)[0]}" if lacking else f"it has {sorted(more)[0]}, which this network lacks"
    settings = {**checkpoint.get(learner.CHECKPOINT_HYPER_PARAMS_KEY, {})}
    shared = [name for name, value in learner.hparams.items() if settings.get(name, value) != value]
    differ = ", ".join(f"{name}={settings[name]!r}" for name in shared)
    raise ValueError(
        f"the checkpoint is of another network: {first}; build the learner with the arguments of the checkpoint"
        f"{f', {differ}' if differ else ''}"
    )


def check_complete(checkpoint: Mapping[str, Any]) -> None:
    """Check that a checkpoint to resume from has the states of optimizers and of the training loop."""
    lacking = [key for key in ("optimizer_states", "lr_schedulers", "loops") if key not in checkpoint]
    if lacking:
        raise ValueError(
            f"the checkpoint has no {', '.join(lacking)}, as one of save_weights_only=True: begin a new run from its "
            "weights, load_from_checkpoint(path)"
        )


def check_augmented(image: object, before: Tensor) -> Tensor:
    """Check that an augmentation gives images like those that it gets; returns them."""
    if not isinstance(image, Tensor):
        raise TypeError(f"augment gives a {type(image).__name__}: it maps images (N, ...) to images, as a tensor")
    if image.shape != before.shape or image.dtype != before.dtype:
        raise ValueError(
            f"augment maps {tuple(before.shape)} of {before.dtype} to {tuple(image.shape)} of {image.dtype}: keep "
            "the size and the type of a batch"
        )
    return image


@contextmanager
def one_sample_named() -> Iterator[None]:
    """Context manager: names the remedy where torch's batch norm refuses a batch of one sample."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            f"a batch of one sample has no statistics for batch norm ({error}): give the data module drop_last=True "
            "or another batch size"
        ) from None


def check_readout(readout: Readout, trainer: Trainer) -> None:
    """Warn at the start of a fit if the readout is fitted to validation data and there is none."""
    batches = trainer.num_val_batches  # empty until they are loaded, which may be in a later epoch
    none = not trainer.enable_validation or (bool(batches) and not sum(batches))
    if type(readout).fit is not Readout.fit and none:
        rank_zero_warn(
            f"readout={type(readout).__name__} is fitted on validation data, of which this run has none, and stays as "
            "it is (new, it is the mean of all blocks): give trainer.fit a validation loader, or choose another "
            "readout, such as MeanReadout()"
        )


def check_one_loader(stage: str, dataloader_idx: int) -> None:
    """Check that the metrics of a stage are computed on one loader."""
    if dataloader_idx:
        raise ValueError(
            f"{stage} has several loaders, which would be mixed in one {stage}/acc: concatenate them "
            "(torch.utils.data.ConcatDataset), or run trainer.validate or trainer.test once for each"
        )


def check_labels(label: Tensor, num_classes: int, batch_idx: int) -> None:
    """Check the range of labels: every batch on the CPU, elsewhere only the first, to avoid a device sync."""
    if label.is_cpu or batch_idx == 0:
        low, high = (int(v) for v in torch.aminmax(label))
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"labels lie in [{low}, {high}] but num_classes={num_classes}: number the classes from 0 or raise "
                "num_classes"
            )
