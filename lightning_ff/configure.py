"""Building what a learner runs with: segments, optimizers, schedulers, and the record of its arguments."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from fnmatch import fnmatchcase
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau, SequentialLR

from lightning_ff import checks
from lightning_ff.hybrid import HybridImages
from lightning_ff.labels import Unlabelled
from lightning_ff.negatives import NegativeSampler, WrongLabel
from lightning_ff.network import LocalNetwork
from lightning_ff.optim import BlockOptimizers, BlockSchedulers, CosineToEnd
from lightning_ff.spec import NotDescribable, describe, is_spec, part
from lightning_ff.sweep import Segment

if TYPE_CHECKING:
    from lightning_ff.learner import LocalLearner

_FUSED_DEVICES = ("cuda", "mps", "xpu")
# They have a kernel on all of these and on the CPU, and make their state at the first step.
_FUSED_OPTIMIZERS = (Adam, AdamW, SGD)
# Batches per epoch and samples per batch that a foreign loader's positions are kept apart for.
_ROWS, _RANKS = 2**20, 2**44


def segments(network: LocalNetwork, kind: str) -> list[Segment]:
    """One segment per block for local learning, else one for the whole network."""
    if kind == "local":
        return [Segment(k, (k,), name) for k, name in enumerate(network.names)]
    if kind not in ("sum_of_losses", "loss_of_sum", "last"):
        raise ValueError(f"segments={kind!r}: choose 'local', 'sum_of_losses', 'loss_of_sum' or 'last'")
    return [Segment(0, tuple(range(len(network.blocks))), "network")]


def joint_loss(network: LocalNetwork, kind: str) -> Callable[[Tensor, Tensor | int], Tensor] | None:
    """The last block's loss for the goodness summed over all blocks, with a threshold that fits the sum."""
    if kind != "loss_of_sum":
        return None
    loss = copy(network.stack[-1].loss)  # shares what it learns, and keeps a threshold of its own
    assert loss is not None
    if network.mode == "pair":
        scales = [
            block.unit(shape[0])
            for block, shape in zip(network.stack, network.shapes, strict=True)
            if block.goodness is not None
        ]
        loss.bind(sum(scales))
    return loss.__call__  # not a submodule, which would be saved twice


def default_negatives(network: LocalNetwork, given: NegativeSampler | None) -> NegativeSampler | None:
    """Wrong labels where a label is written into the input, hybrid images where none is."""
    if given is not None or network.mode == "class":
        return given
    if not isinstance(network.labels, Unlabelled):
        return WrongLabel()
    return HybridImages() if len(network.input_shape) == 3 else None


def optimizers(learner: LocalLearner) -> BlockOptimizers:
    """One optimizer per block that has trainable parameters, and one for a readout that has."""
    owners: dict[str, torch.nn.Module] = dict(zip(learner.network.names, learner.network.blocks, strict=True))
    owners["readout"] = learner.network.readout
    trainable = {name: [p for p in m.parameters() if p.requires_grad] for name, m in owners.items()}
    with_parameters = [name for name, ps in trainable.items() if ps]
    if not with_parameters:
        raise ValueError("no block has a trainable parameter: unfreeze at least one")
    for pattern in learner.block_optimizers:
        if not any(fnmatchcase(name, pattern) for name in with_parameters):
            raise ValueError(
                f"block_optimizers has {pattern!r}: it fits none of those with trainable parameters, "
                f"{', '.join(with_parameters)}"
            )
    made = {name: _fuse(_made(learner, name, trainable[name])) for name in with_parameters}
    return BlockOptimizers(made)


def _made(learner: LocalLearner, name: str, parameters: list[nn.Parameter]) -> Optimizer:
    optimizer = _factory(learner, name)(parameters)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"the optimizer factory of {name} made {optimizer!r}: give one of torch.optim, such as "
            "functools.partial(torch.optim.Adam, lr=0.001)"
        )
    if name in learner.network.names:
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * learner.lr_decay ** learner.network.names.index(name)
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"the optimizer of {name} is {type(optimizer).__name__}, which evaluates the loss several times in a step, "
            "and a sweep runs once: use one that does not, such as torch.optim.Adam"
        )
    return optimizer


def _factory(learner: LocalLearner, name: str) -> Any:
    """The factory of a block; the learner's rate, where it was set, counts for those without one of their own."""
    fitting = [made for pattern, made in learner.block_optimizers.items() if fnmatchcase(name, pattern)]
    if fitting or learner.new_lr is None:
        return fitting[-1] if fitting else learner.optimizer
    return lambda parameters: _rated(learner.optimizer(parameters), learner.lr)


def _rated(optimizer: Optimizer, lr: float) -> Optimizer:
    for group in optimizer.param_groups:
        group["lr"] = lr
    return optimizer


def rate(learner: LocalLearner) -> float:
    """Learning rate that the optimizer factory sets."""
    return float(learner.optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"])


def _fuse(optimizer: Optimizer) -> Optimizer:
    """One fused kernel per step where torch has one and the factory left the choice open."""
    for group in optimizer.param_groups if type(optimizer) in _FUSED_OPTIMIZERS else []:
        open_choice = group.get("fused", False) is None and group.get("foreach") is None
        if open_choice and all(_fusible(p) for p in group["params"]) and not _is_sharded_sgd(optimizer):
            group["fused"] = not group.get("differentiable", False)
    return optimizer


def _is_sharded_sgd(optimizer: Optimizer) -> bool:
    """Whether it is SGD on shared-out weights, for which torch has no fused kernel."""
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return isinstance(optimizer, torch.optim.SGD) and any(hasattr(p, "device_mesh") for p in parameters)


def _fusible(parameter: Tensor) -> bool:
    if parameter.is_cpu:
        # fused SGD moves only the last few half-precision weights on the CPU, up to torch 2.11 at least
        return parameter.dtype in (torch.float32, torch.float64)
    return parameter.is_floating_point() and parameter.device.type in _FUSED_DEVICES


def schedulers(learner: LocalLearner, facade: BlockOptimizers) -> BlockSchedulers | None:
    """One scheduler per optimizer."""
    if learner.scheduler is None:
        return None
    made = BlockSchedulers(facade, {name: learner.scheduler(optimizer) for name, optimizer in facade.inner.items()})
    _check_plateau(learner, made)
    return made


def _check_plateau(learner: LocalLearner, made: BlockSchedulers) -> None:
    plateau = ReduceLROnPlateau.__name__
    if made.on_plateau and not learner.trainer.enable_validation:
        raise ValueError(
            f"scheduler={plateau} steps after validation, and this run has none: give validation data, or a scheduler "
            "that counts epochs or steps"
        )
    if made.on_plateau and learner.scheduler_interval == "step":
        raise ValueError(
            f"scheduler_interval='step' with scheduler={plateau}, which steps after validation: leave the interval out"
        )
    if learner.scheduler_monitor is not None and not made.on_plateau:
        raise ValueError(
            f"scheduler_monitor={learner.scheduler_monitor!r}: only {plateau} waits for a metric, leave it out"
        )


def tell_length(learner: LocalLearner) -> None:
    """Tell schedulers that end with the run how long it is.

    Not before training starts: the length needs the loader, and a loader that is made before Lightning has read the
    checkpoint never gets its state, so that a run resumed in the middle of an epoch would start the epoch again.
    """
    for config in learner.trainer.lr_scheduler_configs:
        made: Any = config.scheduler
        if isinstance(made, BlockSchedulers):
            for name, scheduler in made.inner.items():
                for cosine, begins in _open_cosines(scheduler):
                    cosine.total = max(1, _length(learner, _epochs(learner, name)) - begins)


def _epochs(learner: LocalLearner, name: str) -> float:
    """Number of epochs in which the owner of an optimizer learns."""
    own = next((s for s in learner.segments if name in [learner.network.names[k] for k in s.blocks]), None)
    scheduled = None if own is None else learner.schedule.epochs(own)
    return math.inf if scheduled is None else scheduled


def _open_cosines(scheduler: Any, begins: int = 0) -> Iterator[tuple[CosineToEnd, int]]:
    """Schedulers that follow the run's length, inside torch's combining ones too, with the step each begins at."""
    if isinstance(scheduler, CosineToEnd) and scheduler.total is None:
        yield scheduler, begins
    inner = getattr(scheduler, "_schedulers", [])
    starts = [0, *scheduler._milestones] if isinstance(scheduler, SequentialLR) else [0] * len(inner)
    for each, start in zip(inner, starts, strict=True):
        yield from _open_cosines(each, begins + start)


def _length(learner: LocalLearner, at_most: float) -> int:
    """Number of scheduler steps in the run, of at most so many epochs."""
    trainer = learner.trainer
    epochs, steps = (math.inf if limit in (None, -1) else limit for limit in (trainer.max_epochs, trainer.max_steps))
    epochs = min(epochs, at_most)
    batches = trainer.num_training_batches
    per_epoch = math.ceil(batches / learner.accumulate_grad_batches) if math.isfinite(batches) else math.inf
    if learner.scheduler_interval == "step":
        length = min(steps, epochs * per_epoch)
    else:
        length = epochs if math.isinf(per_epoch) else min(epochs, steps / per_epoch)
    if math.isinf(length):
        raise ValueError(
            f"scheduler=CosineToEnd(total=None) follows the run's length, which max_epochs={trainer.max_epochs}, "
            f"max_steps={trainer.max_steps} and a loader of {batches} batches leave open for "
            f"scheduler_interval={learner.scheduler_interval!r}: set max_epochs or max_steps, or give total"
        )
    return max(1, math.ceil(length))


def monitored(learner: LocalLearner, metrics: Mapping[str, Tensor]) -> Tensor:
    """The metric a plateau scheduler waits for."""
    monitor = learner.scheduler_monitor or "val/loss"
    if monitor not in metrics:
        raise ValueError(f"scheduler_monitor={monitor!r} is not logged: choose one of {', '.join(sorted(metrics))}")
    return metrics[monitor]


def pairs(
    learner: LocalLearner, sampler: NegativeSampler, image: Tensor, label: Tensor, index: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Positives and negatives of a batch as a sampler makes them, checked."""
    if index is None:
        index = fallback_index(learner, image)
    positive, negative = sampler.positives(image, label, learner), sampler(image, label, index, learner)
    checks.pairs(learner, sampler, image, positive, negative)
    return positive, negative


def fallback_index(learner: LocalLearner, image: Tensor) -> Tensor:
    """Stand-in for the sample index of a foreign loader: rank, batch and row, distinct within an epoch."""
    if learner.negatives is not None and learner.negatives.needs_index:
        raise ValueError(
            f"negatives={learner.negatives} remembers samples by their index, which this loader's batches lack: yield "
            "(image, label, index), use a data module of lightning_ff.data, or WrongLabel"
        )
    start = learner.global_rank * _RANKS + learner.batch_number * _ROWS
    return torch.arange(start, start + len(image), device=image.device)


def remember(learner: LocalLearner, ignore: list[str]) -> None:
    """Save the constructor's arguments as plain data, so that checkpoints load weights-only."""
    frame = inspect.currentframe()
    assert frame is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`.*")
        learner.save_hyperparameters(ignore=ignore, frame=frame.f_back)
        if "_instantiator" in learner.hparams:  # from the command line every argument is plain data
            learner.save_hyperparameters(frame=frame.f_back)
    plain = {key: _plain(key, value) for key, value in learner.hparams.items()}
    if plain:
        learner.save_hyperparameters(plain, frame=frame.f_back)
    given = plain.keys() if "_instantiator" in plain else _given(learner, frame.f_back)
    learner._fixed = {key for key in plain if key not in given}


def remember_instead(learner: LocalLearner, name: str, value: Any) -> None:
    """Save another value for an argument of the constructor, where it has that argument."""
    if name in learner.hparams and name not in learner._fixed:
        learner.hparams[name] = _plain(name, value)


def _given(learner: LocalLearner, frame: FrameType | None) -> set[str]:
    """Names of the arguments of the outermost constructor, whose frame is `frame` or one around it."""
    names: set[str] = set()
    while frame is not None and frame.f_code.co_name == "__init__":
        inside = inspect.getargvalues(frame)
        if not inside.args or inside.locals[inside.args[0]] is not learner:
            break
        names = {*inside.args[1:], *(inside.locals[inside.keywords] if inside.keywords else ())}
        frame = frame.f_back
    return names


def _check_rebuilds(found: Any, model: nn.Module) -> None:
    """Whether a network is again as it is, made from its description; it may have been changed since it was made."""
    with torch.random.fork_rng(devices=[]):
        try:
            again = repr(part(found))
        except Exception as error:
            raise NotDescribable(f"{type(model).__name__} cannot be made again ({error})") from None
    if again != repr(model):
        raise NotDescribable(f"{type(model).__name__} was changed after it was made")


def _plain(name: str, value: Any) -> Any:
    """Plain data for an argument; what cannot be described says so when it is asked for after loading."""
    if isinstance(value, Mapping) and not is_spec(value):
        return {str(key): _plain(f"{name}[{key!r}]", entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(f"{name}[{i}]", entry) for i, entry in enumerate(value)]
    try:
        found = describe(value)
        if name == "model" and isinstance(value, nn.Module):
            _check_rebuilds(found, value)
        return found
    except NotDescribable as error:
        return {"class_path": "lightning_ff.spec.missing", "init_args": {"what": f"{name}: {error}"}}
