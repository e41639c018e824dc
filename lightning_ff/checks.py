"""Checks of a learner's arguments and surroundings: every message names argument, value and remedy."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_ff._lightning import one_backward
from lightning_ff.labels import Unlabelled
from lightning_ff.negatives import Mixture, NegativeSampler
from lightning_ff.network import LocalNetwork
from lightning_ff.objectives import ThresholdLoss
from lightning_ff.readouts import Readout
from lightning_ff.validate import check_int, check_number, check_type

if TYPE_CHECKING:
    from lightning_ff.evaluation import Evaluation
    from lightning_ff.learner import LocalLearner

_CHOICES: dict[str, tuple[str, ...]] = {
    "backward": ("per_block", "summed"),
    "step": ("batch", "block"),
    "scheduler_interval": ("epoch", "step"),
    "gradient_clip_algorithm": ("norm", "value"),
}


class NonFiniteLoss(RuntimeError):
    """A loss or a weight became NaN or infinite."""


class CorruptCheckpoint(RuntimeError):
    """A checkpoint file cannot be read."""


def choices(**arguments: str) -> None:
    """Check arguments that are one of a few words."""
    for name, value in arguments.items():
        if value not in _CHOICES[name]:
            raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, _CHOICES[name]))}")


def arguments(learner: LocalLearner) -> None:
    """Check a learner's arguments against each other."""
    if learner.step_mode == "block" and learner.backward_mode == "summed":
        raise ValueError("step='block' needs a backward per block: use backward='per_block', or step='batch'")
    if learner.refresh_output and (learner.step_mode != "block" or learner.objective != "local"):
        raise ValueError(
            f"refresh_output=True with step={learner.step_mode!r} and segments={learner.objective!r}: blocks must have "
            "stepped before the next one runs, so use step='block' and segments='local'"
        )
    check_number("lr_decay", learner.lr_decay, "must be above 0; 1 leaves all rates as they are", above=0)
    if learner.gradient_clip_val is not None:
        check_type("gradient_clip_val", learner.gradient_clip_val, Real, "give a number, or None for no clipping")
    check_int("accumulate_grad_batches", learner.accumulate_grad_batches)
    if learner.gradient_clip_val is not None and not learner.gradient_clip_val > 0:
        raise ValueError(f"gradient_clip_val={learner.gradient_clip_val}: must be above 0, or None for no clipping")
    if learner.accumulate_grad_batches < 1:
        raise ValueError(f"accumulate_grad_batches={learner.accumulate_grad_batches}: must be at least 1")
    factories(learner)
    network = learner.network
    for k, block in enumerate(learner.blocks):
        last = k == len(network.blocks) - 1
        if not (last or (block.trainable and learner.objective != "last")):
            continue
        if block.goodness is None or block.loss is None:
            missing = "goodness" if block.goodness is None else "loss"
            raise ValueError(
                f"{network.names[k]} has {missing}=None, which segments={learner.objective!r} needs: give the block one"
            )


def factories(learner: LocalLearner) -> None:
    """Check that optimizers and schedulers are given as what makes them."""
    given = {f"block_optimizers[{name!r}]": made for name, made in learner.block_optimizers.items()}
    for name, made in {"optimizer": learner.optimizer, **given}.items():
        if not callable(made):
            raise TypeError(f"{name}={made!r}: give a factory, such as functools.partial(torch.optim.Adam, lr=0.001)")
    if learner.scheduler is not None:
        if not callable(learner.scheduler):
            raise TypeError(f"scheduler={learner.scheduler!r}: give a factory, such as lightning_ff.CosineToEnd")
        return
    for name, unset in (("scheduler_monitor", None), ("scheduler_interval", "epoch")):
        if (value := getattr(learner, name)) != unset:
            raise ValueError(f"{name}={value!r} with scheduler=None acts on nothing: give a scheduler, or leave it out")


def negatives(learner: LocalLearner) -> None:
    """Check at `setup()` that the sampler fits the mode, and the readout the label encoding."""
    given, network = learner.negatives, learner.network
    if network.mode == "class":
        if given is not None:
            raise ValueError(f"negatives={given}: class mode has no negatives, leave the argument out")
        return
    if given is None:
        remedy = "WrongLabel()"
        if isinstance(network.labels, Unlabelled):
            remedy = f"HybridImages() for images (C, H, W), which input_shape={network.input_shape} is not"
        raise ValueError(f"negatives=None: pair mode needs a sampler, such as {remedy}")
    sampler(given, network)
    if isinstance(network.labels, Unlabelled) and network.readout.needs == "scores":
        raise ValueError(
            f"readout={network.readout} scans candidate labels, and labels=Unlabelled writes none: use LinearReadout"
        )


def sampler(given: NegativeSampler, network: LocalNetwork) -> None:
    """Check that a sampler, and each one in a mixture, fits the label encoding and the inputs."""
    if isinstance(given, Mixture):
        for each in given.samplers:
            sampler(each, network)  # type: ignore[arg-type]
        return
    if isinstance(network.labels, Unlabelled) and given.writes_label:
        raise ValueError(
            f"negatives={given} differ from positives by their label, and labels=Unlabelled writes none: "
            "use HybridImages, or a label encoding"
        )
    if not given.writes_label and len(network.input_shape) != 3:
        raise ValueError(f"negatives={given} needs images (C, H, W), got input_shape={network.input_shape}")


def held_out(data: object, num_classes: int) -> tuple[int, ...]:
    """Classes that a data module keeps out of training, so that no negative is labelled with one."""
    classes = tuple(getattr(data, "held_out_classes", ()))
    if num_classes - len(classes) < 2:
        raise ValueError(f"held_out={list(classes)} leaves fewer than 2 of {num_classes} classes to train on")
    return classes


def trainer(learner: LocalLearner, flags: Trainer) -> None:
    """Check Trainer flags before Lightning refuses them without naming the remedy."""
    if flags.gradient_clip_val:
        raise ValueError(
            f"Trainer(gradient_clip_val={flags.gradient_clip_val}) does not act on several optimizers: remove it and "
            f"give the learner gradient_clip_val={flags.gradient_clip_val}, which clips each block"
        )
    if flags.accumulate_grad_batches != 1:
        raise ValueError(
            f"Trainer(accumulate_grad_batches={flags.accumulate_grad_batches}) does not act here: remove it and give "
            f"the learner accumulate_grad_batches={flags.accumulate_grad_batches}"
        )
    if any(isinstance(callback, StochasticWeightAveraging) for callback in flags.callbacks):  # type: ignore[attr-defined]
        raise ValueError(
            "StochasticWeightAveraging replaces the scheduler and the backward of automatic optimisation, which this "
            "learner does not use: remove it, or use lightning.pytorch.callbacks.EMAWeightAveraging (Lightning 2.6)"
        )
    if one_backward(flags.strategy) and learner.backward_mode == "per_block" and len(learner.segments) > 1:
        raise ValueError(
            "strategy='ddp' expects all gradients from one backward, and backward='per_block' runs one per block: use "
            "strategy='ff_ddp', which reduces each block's when they are there, or give the learner backward='summed'"
        )
    if flags.precision == "16-mixed" and learner.step_mode == "block":
        raise ValueError(
            "step='block' with precision='16-mixed' would update the loss scale once per block: use step='batch' or "
            "precision='bf16-mixed'"
        )


def checkpoint(path: Any, name: str = "ckpt_path") -> None:
    """Check that a local checkpoint file is whole before anything is loaded from it."""
    file = Path(str(path))
    if not file.is_file():
        return
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        raise CorruptCheckpoint(f"{name}={str(path)!r} is damaged ({error}): use an earlier one beside it") from None
    if damaged:
        raise CorruptCheckpoint(f"{name}={str(path)!r} is damaged (at {damaged}): use an earlier one beside it")


def given_again(learner: type[LightningModule], given: dict[str, Any]) -> None:
    """Check that a network given as an object is given again, since a checkpoint holds only its weights."""
    network = inspect.signature(learner).parameters.get("network")
    if network is not None and network.default is network.empty and "network" not in given:
        raise ValueError(
            f"{learner.__name__} got network=... as an object, of which a checkpoint holds only the weights: give it "
            "again, load_from_checkpoint(path, network=...)"
        )


@contextmanager
def fitting(image: Tensor, learner: Evaluation) -> Iterator[None]:
    """Refuse inputs of a wrong type, and name the cause where a network fails on inputs of another shape."""
    if not image.is_floating_point() or (image.dtype == torch.float64 and learner.dtype != torch.float64):
        raise TypeError(
            f"inputs of type {image.dtype} do not fit weights of type {learner.dtype}: convert the data, such as "
            "image.float() / 255 for bytes, or train with precision='64-true' for float64"
        )
    shape, input_shape = tuple(image.shape[1:]), learner.network.input_shape
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        if shape == input_shape or _runs(learner, image):
            raise
        raise ValueError(
            f"inputs of shape {shape} do not fit the network, built for input_shape={input_shape}: change one of the "
            f"two ({error})"
        ) from error


def _runs(learner: Evaluation, image: Tensor) -> bool:
    """Whether the network predicts from such an input, so that its shape is not what went wrong."""
    try:
        with torch.no_grad():
            learner(torch.zeros_like(image[:1]))
    except (RuntimeError, ValueError, IndexError):
        return False
    return True


def fitted(learner: LocalLearner) -> None:
    """Say so at the start of a fit where the readout is fitted to validation data, and there are none."""
    readout, flags = learner.network.readout, learner.trainer
    batches = flags.num_val_batches  # empty until they are loaded, which may be in a later epoch
    none = not flags.enable_validation or (bool(batches) and not sum(batches))
    if type(readout).fit is not Readout.fit and none:
        rank_zero_warn(
            f"readout={type(readout).__name__} is fitted on validation data, of which this run has none, and stays as "
            "it is (new, it is the mean of all blocks): give trainer.fit a validation loader, or choose another "
            "readout, such as MeanReadout()"
        )


def one_loader(stage: str, dataloader_idx: int) -> None:
    """Check that metrics of one stage come from one loader."""
    if dataloader_idx:
        raise ValueError(
            f"{stage} has several loaders, which would be mixed in one {stage}/acc: join the data sets "
            "(torch.utils.data.ConcatDataset), or run trainer.validate or trainer.test once for each"
        )


def parts(network: Any, **given: Any) -> None:
    """Check that a learner's parts are what their annotations say."""
    check_type(
        "network", network, LocalNetwork, "wrap the blocks, LocalNetwork(blocks, input_shape, num_classes, readout)"
    )
    if given["negatives"] is not None:
        check_type("negatives", given["negatives"], NegativeSampler, "give an instance, such as WrongLabel()")
    if given["augment"] is not None:
        check_type("augment", given["augment"], torch.nn.Module, "give a module, such as RandomShift(1)")
    if given.get("block_optimizers") is not None:
        remedy = "give factories by name of the block, such as {'block00': torch.optim.SGD}"
        check_type("block_optimizers", given["block_optimizers"], Mapping, remedy)
        for name in given["block_optimizers"]:
            check_type("a name in block_optimizers", name, str, remedy)


def pairs(learner: LocalLearner, sampler: NegativeSampler, image: Tensor, positive: Any, negative: Any) -> None:
    """Check what a sampler made of a batch, by shapes alone."""
    network = learner.network
    wanted = tuple(network.encoded_shape)
    if tuple(image.shape[1:]) != network.input_shape and isinstance(positive, Tensor):
        wanted = tuple(positive.shape[1:])  # convolutions take images of another size
    features = "".join(f", {size}" for size in wanted)
    for name, rows, made in (("positives", "N", positive), ("negatives", "k N", negative)):
        want = f"return a tensor of shape ({rows}{features})"
        if not isinstance(made, Tensor):
            raise TypeError(f"negatives={sampler} gave {name} that are a {type(made).__name__}: {want}")
        if tuple(made.shape[1:]) != wanted or made.dim() == 0 or not len(made):
            raise ValueError(f"negatives={sampler} gave {name} of shape {tuple(made.shape)}: {want}")
    losses = [block.loss for block in learner.blocks if block.loss is not None]
    if len(negative) % len(positive) and not all(isinstance(loss, ThresholdLoss) for loss in losses):
        raise ValueError(
            f"negatives={sampler} gave {len(negative)} negatives for {len(positive)} positives, of shape "
            f"{tuple(negative.shape)}: return (k {len(positive)}{features}), k groups in the order of the positives, "
            "or ThresholdLoss takes any number of them"
        )


def labels(label: Tensor, num_classes: int, batch_idx: int) -> None:
    """Check the range of labels: every batch on the CPU, elsewhere the first one, since it asks the device."""
    if label.is_cpu or batch_idx == 0:
        low, high = (int(v) for v in torch.aminmax(label))
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"labels lie in [{low}, {high}] but num_classes={num_classes}: number the classes from 0 or raise "
                "num_classes"
            )


def finite(values: dict[str, float]) -> None:
    """Stop when a loss is not finite, naming the block."""
    bad = [name for name, value in values.items() if value != value or abs(value) == float("inf")]
    if bad:
        raise NonFiniteLoss(
            f"the loss of {bad[0]} is {values[bad[0]]}: training stops, the last checkpoint holds good weights; "
            "lower the learning rate, clip gradients (gradient_clip_val) or use precision='32-true'"
        )


def finite_weights(learner: LocalLearner) -> None:
    """Stop before weights that are not finite are saved, naming the block."""
    network = learner.network
    for name, module in zip([*network.names, "readout"], [*network.blocks, network.readout], strict=True):
        parameters = list(module.parameters())
        if parameters and not bool(torch.stack([p.detach().isfinite().all() for p in parameters]).all()):
            raise NonFiniteLoss(
                f"the weights of {name} are no longer finite: training stops and nothing is saved over the last "
                "checkpoint; lower the learning rate or clip gradients (gradient_clip_val)"
            )
