"""Negative samplers: what a positive is told apart from (pair mode).

A sampler is a part of the learner; callbacks change it during training. Draws are a hash of (seed, epoch, index of the
sample), so they are the same on one process or eight and after a resume, and no global random state is touched.
Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lightning_ff.hashing import hash_bits, hash_uniform, host_uniform
from lightning_ff.labels import LabelEncoding
from lightning_ff.validate import check_int, check_number, check_type


class Learner(Protocol):
    """What a sampler may ask of the learner it serves."""

    @property
    def num_classes(self) -> int: ...
    @property
    def labels(self) -> LabelEncoding: ...
    @property
    def current_epoch(self) -> int: ...
    @property
    def batch_number(self) -> int: ...
    @property
    def held_out(self) -> tuple[int, ...]: ...
    def block_scores(self, x: Tensor) -> list[Tensor]: ...
    def forward(self, x: Tensor) -> Tensor: ...


def wrong_labels(
    y: Tensor, num_classes: int, index: Tensor, seed: int = 0, epoch: int = 0, held_out: Sequence[int] = ()
) -> Tensor:
    """A wrong class for every sample, uniform over the others, never the true one nor one that is held out.

    Args:
        y: True classes `(N,)`.
        num_classes: C.
        index: Index of each sample in its data set `(N,)`.
        seed: Seed of the draw.
        epoch: Another epoch is another draw.
        held_out: Classes that training must not see.

    Returns:
        Wrong classes `(N,)`.

    Example::

        >>> wrong_labels(torch.tensor([0, 1, 0]), 2, torch.arange(3))
        tensor([1, 0, 1])
        >>> wrong_labels(torch.tensor([0, 2, 0]), 3, torch.arange(3), held_out=[1])
        tensor([2, 0, 2])
    """
    return _others(y, num_classes, held_out)(hash_bits(index, seed, epoch))


def _others(y: Tensor, num_classes: int, held_out: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Numbers, modulo how many there are, to wrong classes for `y`."""
    if not held_out:
        return lambda number: (y + 1 + number % (num_classes - 1)) % num_classes
    seen = torch.tensor([c for c in range(num_classes) if c not in held_out], device=y.device)
    place = torch.searchsorted(seen, y)
    return lambda number: seen[(place + 1 + number % (len(seen) - 1)) % len(seen)]


def hard_labels(
    scores: Tensor, y: Tensor, index: Tensor, seed: int = 0, epoch: int = 0, held_out: Sequence[int] = ()
) -> Tensor:
    """A wrong class for every sample, drawn in proportion to the softmax of the scores, never the true one.

    Args:
        scores: Class scores `(N, C)`.
        y: True classes `(N,)`.
        index: Index of each sample `(N,)`.
        seed: Seed of the draw.
        epoch: Another epoch is another draw.
        held_out: Classes that training must not see.

    Returns:
        Wrong classes `(N,)`.

    Example::

        >>> hard_labels(torch.tensor([[9.0, 0.0, 90.0]]), torch.tensor([0]), torch.tensor([5]))
        tensor([2])
    """
    wrong = scores.float().scatter(1, y.unsqueeze(1), -torch.inf)
    wrong[:, list(held_out)] = -torch.inf
    cells = index.unsqueeze(1) * scores.shape[1] + torch.arange(scores.shape[1], device=y.device)
    uniform = hash_uniform(cells, seed, epoch)
    return (wrong - torch.log(-torch.log(uniform))).argmax(1)


class NegativeSampler(nn.Module):
    """Base of all samplers: override `forward(x, y, index, learner)`.

    It returns negatives as the network's input `(k N, ...)`: k groups in the order of the positives. Buffers and
    parameters are saved in checkpoints, apart from the model's weights, so that a resumed run goes on with them.

    Args:
        seed: Seed of the draws.

    Attributes:
        needs_index: Only works with loaders that give the samples' index.
        writes_label: Negatives differ from positives by the label in the input.
        needs_scores: Asks the whole network what it thinks of an image before the blocks learn from it.
    """

    needs_index = False
    writes_label = True
    needs_scores = False

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        check_int("seed", seed)
        self.seed = seed

    @property
    def version(self) -> int | None:
        """A number that stays as long as every sample keeps its negatives; None where each epoch has other ones."""
        return None

    def positives(self, x: Tensor, y: Tensor, learner: Learner) -> Tensor:
        """The positives that go with these negatives: the true class written into the input."""
        return learner.labels(x, y)

    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Learner) -> Tensor:
        """Make the negatives of a batch: inputs `(N, ...)`, classes `(N,)`, indexes `(N,)`."""
        raise TypeError(f"{type(self).__name__} must override forward(x, y, index, learner)")

    def extra_repr(self) -> str:
        return f"seed={self.seed}"


class WrongLabel(NegativeSampler):
    """The same image with a wrong label, uniform over the other classes, drawn anew every epoch.

    Args:
        seed: Seed of the draws.
    """

    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Learner) -> Tensor:
        wrong = wrong_labels(y, learner.num_classes, index, self.seed, learner.current_epoch, learner.held_out)
        return learner.labels(x, wrong)


class FixedPool(NegativeSampler):
    """Every sample keeps the wrong label it is first given, until the pool is redrawn.

    Args:
        seed: Seed of the draws.
        draw: Number of the pool; :class:`~lightning_ff.callbacks.RefreshNegatives` raises it.
    """

    needs_index = True

    def __init__(self, seed: int = 0, draw: int = 0) -> None:
        super().__init__(seed)
        check_int("draw", draw)
        self.draw = draw

    @property
    def version(self) -> int | None:
        return self.draw

    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Learner) -> Tensor:
        return learner.labels(x, wrong_labels(y, learner.num_classes, index, self.seed, self.draw, learner.held_out))


class HardLabel(NegativeSampler):
    """A wrong label drawn in proportion to the network's own scores (arXiv 2212.13345, section 3.3).

    The scan runs in eval mode without gradients. Other batches, and earlier epochs, get plain wrong labels.

    Args:
        seed: Seed of the draws.
        fraction: Share of the batches that get hard labels; a scan costs about as much as C forward passes.
        start_epoch: First epoch with hard labels: the scores mean nothing before the network is above chance.

    Raises:
        ValueError: fraction outside (0, 1], or start_epoch negative.
        TypeError: an argument is not what its annotation says.
    """

    needs_scores = True

    def __init__(self, seed: int = 0, fraction: float = 0.25, start_epoch: int = 1) -> None:
        super().__init__(seed)
        check_number("fraction", fraction, "must lie in (0, 1]", above=0)
        if fraction > 1:
            raise ValueError(f"fraction={fraction}: must lie in (0, 1]")
        check_int("start_epoch", start_epoch)
        if start_epoch < 0:
            raise ValueError(f"start_epoch={start_epoch}: must be 0 or more")
        self.fraction = fraction
        self.start_epoch = start_epoch

    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Learner) -> Tensor:
        epoch = learner.current_epoch
        if epoch < self.start_epoch or host_uniform(self.seed, epoch, learner.batch_number) >= self.fraction:
            wrong = wrong_labels(y, learner.num_classes, index, self.seed, epoch, learner.held_out)
            return learner.labels(x, wrong)
        with torch.no_grad():
            scores = learner.forward(x)
        return learner.labels(x, hard_labels(scores, y, index, self.seed, epoch, learner.held_out))

    def extra_repr(self) -> str:
        return f"seed={self.seed}, fraction={self.fraction}, start_epoch={self.start_epoch}"


class AllWrongLabels(NegativeSampler):
    """All wrong labels of every image: C - 1 negatives for each positive, fewer where classes are held out."""

    def __init__(self) -> None:
        super().__init__(seed=0)

    @property
    def version(self) -> int | None:
        return 0

    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Learner) -> Tensor:
        others = learner.num_classes - len(learner.held_out) - 1
        number = torch.arange(others, device=y.device).unsqueeze(1)
        wrong = _others(y, learner.num_classes, learner.held_out)(number)
        return learner.labels(x.repeat(others, *[1] * (x.dim() - 1)), wrong.flatten())

    def extra_repr(self) -> str:
        return ""


def load_state(sampler: NegativeSampler, state: Mapping[str, Any], strict: bool = True) -> None:
    """Give a sampler what it held when a checkpoint was saved.

    Args:
        sampler: The sampler.
        state: Its `state_dict()` of then.
        strict: A state that does not fit is an error; otherwise the sampler stays as it is.

    Raises:
        ValueError: the state is another sampler's.
    """
    if not strict and _shapes(state) != _shapes(sampler.state_dict()):
        return
    try:
        sampler.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"negatives={sampler} cannot go on from this checkpoint, whose sampler holds {', '.join(state)}: resume "
            f"with that sampler, and change it by SwitchNegatives from an epoch on ({error})"
        ) from error


def _shapes(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, "shape", None) for name, value in state.items()}


def check_weights(argument: str, weights: list[float], samplers: list[NegativeSampler]) -> None:
    """Check samplers and their shares in a mixture, given as `argument`."""
    check_type("samplers", samplers, (list, tuple), "give a list, such as [WrongLabel(), HardLabel()]")
    for i, sampler in enumerate(samplers):
        check_type(f"samplers[{i}]", sampler, NegativeSampler, "give an instance, such as WrongLabel()")
    check_type(argument, weights, (list, tuple), "give a list of numbers, one for each sampler")
    if len(samplers) != len(weights) or not samplers:
        raise ValueError(f"{argument}={weights}: give one for each of the {len(samplers)} samplers")
    for i, weight in enumerate(weights):
        check_number(f"{argument}[{i}]", weight, "give a finite number, 0 or more")
    if min(weights) < 0 or sum(weights) == 0:
        raise ValueError(f"{argument}={weights}: must be 0 or more and not all 0")


class Mixture(NegativeSampler):
    """One of several samplers per batch, drawn by weight.

    Args:
        samplers: The samplers.
        weights: Their shares, 0 or more, not all 0.
        seed: Seed of the draw between them.

    Raises:
        ValueError: lengths differ, or weights are negative, not finite or all 0.
        TypeError: an argument is not what its annotation says.
    """

    def __init__(self, samplers: list[NegativeSampler], weights: list[float], seed: int = 0) -> None:
        super().__init__(seed)
        check_weights("weights", weights, samplers)
        self.samplers = nn.ModuleList(samplers)
        self.weights = list(weights)

    @property
    def needs_index(self) -> bool:  # type: ignore[override]
        return any(bool(sampler.needs_index) for sampler in self.samplers)

    @property
    def writes_label(self) -> bool:  # type: ignore[override]
        return any(bool(sampler.writes_label) for sampler in self.samplers)

    @property
    def needs_scores(self) -> bool:  # type: ignore[override]
        return any(bool(sampler.needs_scores) for sampler in self.samplers)

    @property
    def level(self) -> int:
        """Key of the draw, so that mixtures in mixtures, and samplers in them with the same seed, draw on their own."""
        return 1 + max((sampler.level for sampler in self.samplers if isinstance(sampler, Mixture)), default=0)

    def _drawn(self, learner: Learner) -> NegativeSampler:
        mark = host_uniform(self.seed, learner.current_epoch, learner.batch_number, self.level) * sum(self.weights)
        for sampler, weight in zip(self.samplers, self.weights, strict=True):
            mark -= weight
            if mark < 0:
                return sampler  # type: ignore[return-value]
        return self.samplers[-1]  # type: ignore[return-value]

    def positives(self, x: Tensor, y: Tensor, learner: Learner) -> Tensor:
        return self._drawn(learner).positives(x, y, learner)

    def forward(self, x: Tensor, y: Tensor, index: Tensor, learner: Learner) -> Tensor:
        return self._drawn(learner)(x, y, index, learner)

    def extra_repr(self) -> str:
        return f"weights={self.weights}"
